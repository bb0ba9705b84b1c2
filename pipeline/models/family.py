"""The record of a model family: everything that JoyFleet must know about one kind of model.

A family is one module of `pipeline.models` that ends with a `ModelFamily`, beside the file with its prompts. The other
packages use only this record, so that a new kind of model needs no change in them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.models.dims import ModelDims

Pixels = npt.NDArray[np.uint8]
"""RGB, shape (height, width, 3)."""


class Form(StrEnum):
    """The form of text that a mode requests."""

    PROSE = "prose"
    TAGS = "tags"
    PROMPT = "prompt"
    """A prompt for an image model: phrases, tags or sentences."""
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One mode in one tone, with a template for each kind of length; None where the generation has none."""

    name: str
    """The short name in configs and caption rows. It never changes its meaning."""
    tone: str | None
    title: str
    """The name that the model's author uses."""
    no_length: str
    word_count: str | None = None
    length_class: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The prompts that one generation of a family was trained on."""

    name: str
    """Unique among all families."""
    servable: bool
    """Whether a checkpoint exists that vLLM can load."""
    modes: tuple[Mode, ...]
    """The first tone of a mode is its default."""
    length_classes: tuple[str, ...] = ()
    word_counts: tuple[int, ...] = ()
    """The word counts that the author's page offers. Other numbers are accepted with a remark."""
    options: Mapping[str, str]
    """Short name to text, in the author's order."""
    system: str | None
    """The default system turn."""
    max_tokens: int
    """Default of `sampling.max_tokens`."""


class Geometry(Protocol):
    """How large the pixels of an image are when the model gets them. A geometry pickles and compares by value."""

    @property
    def max_pixels(self) -> int:
        """Maximum of width x height over all images."""
        ...

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) in px for an upright image of this size."""
        ...

    def recipe(self) -> dict[str, int]:
        """Return the fields for the `images` part of the recipe: everything that can change the pixels."""
        ...


@dataclass(frozen=True, slots=True)
class FixedSize:
    """Every image gets the same size; its aspect ratio is not kept."""

    width_px: int
    height_px: int

    @property
    def max_pixels(self) -> int:
        return self.width_px * self.height_px

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        del width, height  # of the protocol; a fixed size depends on neither
        return self.width_px, self.height_px

    def recipe(self) -> dict[str, int]:
        if self.width_px == self.height_px:
            return {"side_px": self.width_px}
        return {"width_px": self.width_px, "height_px": self.height_px}


@dataclass(frozen=True, slots=True)
class NoImage:
    """The geometry of a model that takes text alone: no image is read, and a request has pixels of 0 x 0."""

    @property
    def max_pixels(self) -> int:
        return 0

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        del width, height  # of the protocol
        return 0, 0

    def recipe(self) -> dict[str, int]:
        return {}


def takes_images(geometry: Geometry) -> bool:
    """Whether a model with this geometry gets an image with each request."""
    return geometry.max_pixels > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCaption:
    """The greedy caption of the doctor's golden image (`pipeline.doctor.golden`) by some weights, in bfloat16.

    The prompt is the family's first mode without length and options.
    """

    model_digest: str
    """`Weights.digest` of `pipeline.recipe`."""
    text: str
    num_tokens: int
    """Including the end token. Text and number of tokens together stand for the ids."""


class PromptLayout(Protocol):
    """The prompts of one loaded model as token ids."""

    @property
    def image_token(self) -> int | None:
        """Id of the image placeholder; None for a model without images."""
        ...

    @property
    def template_settings(self) -> Mapping[str, Any]:
        """Variables of the chat template that a server needs to build the same prompt."""
        ...

    def image_tokens(self, width: int, height: int) -> int:
        """Return the number of tokens that replace the placeholder for pixels of this size."""
        ...

    def encode(self, system: str, prompt: str) -> tuple[int, ...]:
        """Return the ids of a prompt with exactly one image placeholder, if the model takes images.

        Special tokens, image tokens and marks of the chat template within `system` and `prompt` are text: a source's
        field may hold them.
        """
        ...

    def check(self, ids: tuple[int, ...]) -> None:
        """Check the layout of a prompt.

        Raises:
            ModelMismatch: names each fault.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointNeeds:
    """What an OpenAI-compatible server needs to serve the family."""

    chat_template: str | None
    """The file to start the server with, relative to the repository; None: the template of the model itself."""
    messages: Callable[[str, str, str | None], list[Any]]
    """(system, prompt, image URL) to the messages of the chat request; the URL is None without an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """One kind of model."""

    name: str
    generations: tuple[str, ...]
    """Names, oldest first."""
    load_generation: Callable[[str], Generation]
    """Cached."""
    recognise: Callable[[str, Mapping[str, Any] | None], str | None]
    """(model id, its config.json where it is a local folder) to the generation; None for a model of another family."""
    catalogue_digest: Callable[[], str]
    """Digest of the prompt texts; it enters every recipe."""
    forms: Mapping[str, Form]
    """Mode to the form of its captions."""
    class_words: Mapping[str, int]
    """Length class to its number of words, in ascending order."""
    sampling: Mapping[str, float]
    """The author's values of `sampling` keys. A job that keeps JoyFleet's default instead gets a remark."""
    tokens_per_word: float
    """Tokens of a caption per word, punctuation included; for cost estimates."""
    chars_per_token: float
    """Characters per token of a prompt; for cost estimates."""

    geometry_of: Callable[[Mapping[str, Any] | None], Geometry]
    """config.json to geometry; None for a model on the hub."""
    dims: ModelDims | None
    """The published model's, for plans that are made without the weights; None: its models have many sizes."""
    dims_of: Callable[[Mapping[str, Any]], ModelDims | None]
    """config.json to dimensions; None if they do not follow from it."""
    load_layout: Callable[[Any, Mapping[str, Any], str], PromptLayout]
    """(tokenizer, config.json, model name for messages) to the layout. Raises ModelMismatch."""
    prepare_images: Callable[[Any, Geometry, str, str], Callable[[Pixels], Mapping[str, Any]]] | None
    """(the model's image processor, geometry, dtype, model name) to a function that returns the tensors of an image.
    None for a family without images, whose geometry is `NoImage`."""
    unquantized: tuple[str, ...]
    """Module prefixes that keep two bytes a weight under `engine.quantization: fp8`."""
    endpoint: EndpointNeeds
    known_captions: tuple[KnownCaption, ...] = ()
    """For `joyfleet doctor`."""


def openai_messages(system: str, prompt: str, image_url: str | None) -> list[Any]:
    """Return a system turn and a user turn with the image in front of the text."""
    assert image_url is not None
    content = [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": prompt}]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]
