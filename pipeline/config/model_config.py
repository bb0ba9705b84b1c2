"""Which model captions the images, or writes new texts from captions."""

from pipeline.config.base import ConfigPart


class ModelConfig(ConfigPart):
    """Which weights, and which prompts they were trained on. A string is short for `{id: ...}`."""

    short_form = "id"

    id: str
    """`standin`, a hub id such as fancyfeast/llama-joycaption-beta-one-hf-llava, or a local folder."""
    revision: str | None = None
    """Commit or tag on the Hugging Face hub. Pin it for production."""
    generation: str | None = None
    """alpha-one, alpha-two or beta-one of JoyCaption, or text for a language model without images
    (docs/text-models.md). By default it is derived from `id`, or from the `config.json` of a local folder."""
