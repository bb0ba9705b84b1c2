"""JoyCaption by fpgaminer: alpha-two and beta-one, a LLaVA of SigLIP so400m at 384 px and Llama-3.1-8B.

The stand-in (`model: standin`) has the same architecture and the prompts of alpha-two.

Prompt texts are in `joycaption.json`, which is versioned data: byte-equal copies of the texts in the author's
repositories (each entry names its sources). It is never edited once a run has used it; its digest is in every recipe.

Prompts become token ids here, because every ready-made way does it wrong without an error. vLLM's chat API inserts a
literal `<image>` line and, depending on its version, drops or doubles the BOS; the hub's own README warns of several
BOS. The layout is one BOS at 0, and one image placeholder between its start and end tokens and before the text.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from pipeline.errors import ModelMismatch
from pipeline.models.dims import ModelDims, VisionDims
from pipeline.models.family import (
    EndpointNeeds,
    FixedSize,
    Form,
    Generation,
    Geometry,
    KnownCaption,
    Mode,
    ModelFamily,
    Pixels,
    openai_messages,
)
from pipeline.models.text_ids import special_ids, text_ids

_FORMAL, _CASUAL = "formal", "casual"

_MODES: dict[str, dict[str, dict[str | None, str]]] = {
    "pre-alpha": {"descriptive": {None: "descriptive"}},
    "alpha-one": {
        "descriptive": {_FORMAL: "descriptive/formal", _CASUAL: "descriptive/informal"},
        "training-prompt": {None: "training_prompt/formal"},
        "booru-tags": {None: "rng-tags/formal"},
    },
    "alpha-two": {
        "descriptive": {_FORMAL: "Descriptive", _CASUAL: "Descriptive (Informal)"},
        "training-prompt": {None: "Training Prompt"},
        "midjourney": {None: "MidJourney"},
        "booru-tags": {None: "Booru tag list"},
        "booru-like-tags": {None: "Booru-like tag list"},
        "art-critic": {None: "Art Critic"},
        "product-listing": {None: "Product Listing"},
        "social-media": {None: "Social Media Post"},
    },
    "beta-one": {
        "descriptive": {_FORMAL: "Descriptive", _CASUAL: "Descriptive (Casual)"},
        "straightforward": {None: "Straightforward"},
        "stable-diffusion-prompt": {None: "Stable Diffusion Prompt"},
        "midjourney": {None: "MidJourney"},
        "danbooru-tags": {None: "Danbooru tag list"},
        "e621-tags": {None: "e621 tag list"},
        "rule34-tags": {None: "Rule34 tag list"},
        "booru-like-tags": {None: "Booru-like tag list"},
        "art-critic": {None: "Art Critic"},
        "product-listing": {None: "Product Listing"},
        "social-media": {None: "Social Media Post"},
    },
}
"""Generation to mode to tone (None: the mode has no tones) to the author's name of the type. The first tone is the
default."""

# fmt: off
_OPTIONS: tuple[str, ...] = (
    "refer-by-name", "no-fixed-attributes", "lighting", "camera-angle", "watermark", "jpeg-artifacts", "camera-details",
    "keep-pg", "no-resolution", "aesthetic-quality", "composition", "no-text", "depth-of-field", "light-sources",
    "no-ambiguity", "rating", "only-important", "no-artist-or-title", "orientation", "vulgar", "no-euphemisms", "ages",
    "shot-type", "no-mood", "vantage-height", "must-mention-watermark", "no-meta-phrases",
)
# fmt: on
"""In the order of `extra_options` in the catalogue: alpha-two has the first 17, beta-one all 27."""

_FORMS: dict[str, Form] = {
    **dict.fromkeys(("descriptive", "straightforward", "art-critic", "product-listing", "social-media"), Form.PROSE),
    **dict.fromkeys(("booru-tags", "booru-like-tags", "danbooru-tags", "e621-tags", "rule34-tags"), Form.TAGS),
    **dict.fromkeys(("training-prompt", "midjourney", "stable-diffusion-prompt"), Form.PROMPT),
}

_CLASS_WORDS = {"very short": 20, "short": 40, "medium-length": 60, "long": 100, "very long": 200}
"""From the rubric of the author's judge (fpgaminer/joycaption, BuildAlignmentDataset.ipynb)."""

_SYSTEM_VARIANT = {"beta-one": "apps_batch_comfy"}
"""Of beta-one's system prompts, the one of the author's demo page and batch script."""

_SERVABLE = ("alpha-two", "beta-one")
"""Generations that exist as a Hugging Face Llava checkpoint, the only kind that vLLM loads."""

_ID_PARTS = {"alpha-two": "alpha-two", "beta-one": "beta-one", "standin": "alpha-two"}
"""Part of a model id to generation."""

_SIDE_PX = 384
"""google/siglip-so400m-patch14-384, the tower of every generation."""

_SYSTEM_TOKENS = 40
"""Header, dates and the author's system text."""


@functools.cache
def _raw() -> bytes:
    return resources.files("pipeline.models").joinpath("joycaption.json").read_bytes()


@functools.cache
def _catalogue_digest() -> str:
    """First 16 hex digits of the file's SHA-256."""
    return hashlib.sha256(_raw()).hexdigest()[:16]


@functools.cache
def _load_generation(name: str) -> Generation:
    entry: dict[str, Any] = json.loads(_raw())["generations"][name]
    modes = [
        _mode(mode, tone, title, entry["types"][title])
        for mode, tones in _MODES[name].items()
        for tone, title in tones.items()
    ]
    texts: list[str] = entry["extra_options"]
    system: str | dict[str, str] | None = entry["system_prompt"]
    return Generation(
        name=name,
        servable=name in _SERVABLE,
        modes=tuple(modes),
        length_classes=tuple(entry["length_classes"]),
        word_counts=tuple(int(count) for count in entry["word_counts"]),
        options=dict(zip(_OPTIONS, texts, strict=False)),
        system=system[_SYSTEM_VARIANT[name]] if isinstance(system, dict) else system,
        max_tokens=512 if name == "beta-one" else 300,
    )


def _mode(name: str, tone: str | None, title: str, templates: Mapping[str, str]) -> Mode:
    return Mode(
        name=name,
        tone=tone,
        title=title,
        no_length=templates["no_length"],
        word_count=templates.get("word_count"),
        length_class=templates.get("length_class"),
    )


def _recognise(model_id: str, stated: Mapping[str, Any] | None) -> str | None:
    del stated  # config.json is the same for every generation
    return next((generation for part, generation in _ID_PARTS.items() if part in model_id.lower()), None)


def _geometry_of(stated: Mapping[str, Any] | None) -> Geometry:
    side = int((stated or {}).get("vision_config", {}).get("image_size", _SIDE_PX))
    return FixedSize(side, side)


_DIMS = ModelDims(
    hidden=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    mlp=14336,
    vocab=128256,
    vision=VisionDims(hidden=1152, layers=26, mlp=4304, patch_px=14, side_px=_SIDE_PX),
    system_tokens=_SYSTEM_TOKENS,
)
"""8.48 billion parameters, of alpha-two and beta-one alike."""


def _dims_of(stated: Mapping[str, Any]) -> ModelDims:
    text, vision = stated["text_config"], stated["vision_config"]
    layers, feature = vision["num_hidden_layers"], stated["vision_feature_layer"]
    return ModelDims(
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"],
        mlp=text["intermediate_size"],
        vocab=text["vocab_size"],
        vision=VisionDims(
            hidden=vision["hidden_size"],
            # Hidden state 0 is the input of the first layer, and -2 the output of the second last.
            layers=layers + 1 + feature if feature < 0 else feature,
            mlp=vision["intermediate_size"],
            patch_px=vision["patch_size"],
            side_px=vision["image_size"],
        ),
        system_tokens=_SYSTEM_TOKENS,
    )


_BOS, _HEADER, _HEADER_END, _EOT = "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
_IMAGE = "<|reserved_special_token_69|>"
_IMAGE_START, _IMAGE_END = "<|reserved_special_token_70|>", "<|reserved_special_token_71|>"
_PREAMBLE = "Cutting Knowledge Date: December 2023\nToday Date: 26 July 2024\n\n"


class _Layout:
    """See `pipeline.models.family.PromptLayout`."""

    def __init__(self, tokenizer: Any, stated: Mapping[str, Any], name: str) -> None:  # noqa: ANN401 - transformers'
        self._name = name
        self._tokenizer = tokenizer
        self._special_ids = special_ids(tokenizer, name)
        specials = (_BOS, _HEADER, _HEADER_END, _EOT, _IMAGE, _IMAGE_START, _IMAGE_END)
        self._ids = {special: self._special(special) for special in specials}
        self._image_tokens = _check_config(stated, self.image_token, name)
        self.check(self.encode("You are a helpful image captioner.", f"Describe {_EOT} this."))

    @property
    def image_token(self) -> int:
        return self._ids[_IMAGE]

    @property
    def template_settings(self) -> Mapping[str, Any]:
        return {}

    def image_tokens(self, width: int, height: int) -> int:
        del width, height  # of the protocol; all images have one size
        return self._image_tokens

    def _special(self, token: str) -> int:
        ids: list[int] = self._tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ModelMismatch(
                f"{self._name}: {token} is {len(ids)} tokens, must be 1; this is not JoyCaption's tokenizer"
            )
        return ids[0]

    def _text(self, text: str) -> list[int]:
        # A special token in a user's own prompt or in a field of the source stays text.
        ids = text_ids(self._tokenizer, text)
        # Each text of a prompt has none, so that a prompt has those of the layout and no more.
        assert self._special_ids.isdisjoint(ids), f"{self._name}: special ids for the text {text[:80]!r}"
        return ids

    def _header(self, role: str) -> list[int]:
        return [self._ids[_HEADER], *self._text(role), self._ids[_HEADER_END], *self._text("\n\n")]

    def encode(self, system: str, prompt: str) -> tuple[int, ...]:
        ids = self._ids
        return (
            ids[_BOS],
            # "\n\n" and the preamble are one run of text in the hub's template, so they are tokenised together.
            *(ids[_HEADER], *self._text("system"), ids[_HEADER_END]),
            *self._text("\n\n" + _PREAMBLE + system.strip()),
            ids[_EOT],
            *self._header("user"),
            *(ids[_IMAGE_START], ids[_IMAGE], ids[_IMAGE_END]),
            *self._text(prompt.strip()),
            ids[_EOT],
            *self._header("assistant"),
        )

    def check(self, ids: tuple[int, ...]) -> None:
        bos, image = self._ids[_BOS], self._ids[_IMAGE]
        faults: list[str] = []
        if ids[:1] != (bos,) or ids.count(bos) != 1:
            faults.append(f"BOS {bos} is at {_places(ids, bos)}, must be at 0 only")
        if ids.count(image) != 1:
            faults.append(f"image token {image} is at {_places(ids, image)}, must occur once")
        else:
            at = ids.index(image)
            if ids[at - 1] != self._ids[_IMAGE_START] or ids[at + 1 : at + 2] != (self._ids[_IMAGE_END],):
                faults.append("the image token is not between its start and end tokens")
            if self._ids[_EOT] not in ids[:at]:
                faults.append("the image token is in the system turn")
        if ids[-len(self._header("assistant")) :] != tuple(self._header("assistant")):
            faults.append("the prompt does not end with the assistant's header")
        if faults:
            raise ModelMismatch(f"{self._name}: wrong prompt layout: {'; '.join(faults)}")


def _places(ids: tuple[int, ...], token: int) -> list[int]:
    return [index for index, value in enumerate(ids) if value == token]


def _check_config(stated: Mapping[str, Any], image_token: int, name: str) -> int:
    """Return the number of tokens of an image, after a check that the model is JoyCaption's kind of LLaVA."""
    if stated.get("model_type") != "llava":
        raise ModelMismatch(f"{name}: model_type is {stated.get('model_type')!r}, must be 'llava'")
    index = stated.get("image_token_index") or stated.get("image_token_id")
    if index != image_token:
        raise ModelMismatch(f"{name}: image_token_index is {index}, but the tokenizer's {_IMAGE} is {image_token}")
    side, patch = stated["vision_config"]["image_size"], stated["vision_config"]["patch_size"]
    strategy, length = stated["vision_feature_select_strategy"], stated["image_seq_length"]
    tokens = (side // patch) ** 2
    if strategy != "full" or length != tokens:
        raise ModelMismatch(
            f"{name}: strategy {strategy!r} with image_seq_length {length}; JoyCaption has 'full' with "
            f"({side} // {patch})**2 = {tokens}"
        )
    return tokens


def _prepare_images(
    process: Any,  # noqa: ANN401 - see `pixel_table.Process`: naming it would import torch
    geometry: Geometry,
    dtype: str,
    name: str,
) -> Callable[[Pixels], Mapping[str, Any]]:
    # Importing torch takes seconds: only the process of an engine pays for it.
    from pipeline.models.pixel_table import PixelTable  # noqa: PLC0415

    table = PixelTable(process, geometry.size_of(0, 0), dtype, name)
    return lambda pixels: {"pixel_values": table(pixels)}


FAMILY = ModelFamily(
    name="joycaption",
    generations=tuple(_MODES),
    load_generation=_load_generation,
    recognise=_recognise,
    catalogue_digest=_catalogue_digest,
    forms=_FORMS,
    class_words=_CLASS_WORDS,
    sampling={"temperature": 0.6, "top_p": 0.9},
    tokens_per_word=1.35,  # an assumption, as the next one: English text in the tokens of Llama 3
    chars_per_token=4.5,
    geometry_of=_geometry_of,
    dims=_DIMS,
    dims_of=_dims_of,
    load_layout=_Layout,
    prepare_images=_prepare_images,
    unquantized=("vision_tower", "multi_modal_projector"),
    endpoint=EndpointNeeds(chat_template="infra/joycaption.jinja", messages=openai_messages),
    known_captions=(
        KnownCaption(
            model_digest="1ebf47487a3912ec",  # the stand-in
            text="This image shows a large red circle on a plain white background. It is placed at the center of the "
            "image. The background is white with a plain texture.",
            num_tokens=33,
        ),
    ),
)
