"""The captions of each image: slots, each one request or a weighted mix of requests.

Only the form is checked here. `pipeline.prompts` has the catalogue, and checks whether a generation has a mode, a
tone or an option.
"""

import warnings
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from pipeline.config.base import AS_LIST, ConfigPart, refuse_repeats
from pipeline.config.json_schema import check_schema, schema_text
from pipeline.config.prompt_fields_config import OPENING, check_template, fields_in, with_long_names
from pipeline.config.recipe_form import added
from pipeline.config.where_config import FieldTest

MAX_WORDS = 1000
"""No generation was trained on more: beta-one's longest request is 300 words."""


class WordsDistribution(ConfigPart):
    """A normal distribution of word counts, rounded up to a multiple of `step`, clipped to [min, max].

    The form and the example (mean 45, std 30, 20..170, step 10) are those of the author's own
    production run, bigASP v2 (fpgaminer/bigasp-training, caption-images.py).
    """

    mean: float = Field(gt=0, le=MAX_WORDS)
    """Mean of the distribution, in words."""
    std: float = Field(ge=0, le=MAX_WORDS)
    """Standard deviation, in words."""
    min: int = Field(ge=1, le=MAX_WORDS)
    """Smallest number of words."""
    max: int = Field(ge=1, le=MAX_WORDS)
    """Largest number of words."""
    step: int = Field(default=10, ge=1, le=MAX_WORDS)
    """Numbers of words are multiples of this."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is above max={self.max}; allowed: min <= max")
        return self


class WordsLength(ConfigPart):
    """A length that is drawn for each image."""

    words: WordsDistribution
    """Distribution of the number of words."""


def _form_of_length(value: Any) -> str:  # noqa: ANN401 - raw YAML or a built part
    if isinstance(value, dict | WordsLength):
        return "~distribution"
    return "~class" if isinstance(value, str) else "~words"


Length = Annotated[
    Annotated[int, Field(ge=1, le=MAX_WORDS, strict=True), Tag("~words")]
    | Annotated[str, Tag("~class")]
    | Annotated[WordsLength, Tag("~distribution")],
    Discriminator(_form_of_length),
]
"""A number of words, the name of a length class, or a distribution of words."""


class RequestConfig(ConfigPart):
    """One request: a mode with its tone, length, options and name, or a custom prompt."""

    mode: str | None = None
    """Kind of caption, such as descriptive. `joyfleet prompts` lists modes, tones, length classes and options."""
    tone: str | None = None
    """Tone of the mode; by default the mode's first."""
    length: Length | None = None
    """Number of words, length class, or distribution of words; by default the prompt does not mention a length."""
    options: tuple[str, ...] = ()
    """Extra sentences of the prompt, by name, each at most once."""
    extra: Annotated[tuple[str, ...], AS_LIST] = added(default=())
    """Sentences of your own after the mode's prompt and its options. `{source.FIELD}` is a field of the source row."""
    name: str | None = None
    """Name of the person or character, for the option refer-by-name; may hold `{source.FIELD}`."""
    prompt: str | None = None
    """A custom prompt; its caption rows have mode `custom`. It is sent unchanged but for `{source.FIELD}`."""
    system: str | None = None
    """The system prompt; by default that of the generation."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _check_mode_or_prompt(self)
        return self

    @field_validator("options")
    @classmethod
    def _options_once(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        refuse_repeats("options", options)
        return options

    @field_validator("extra")
    @classmethod
    def _sentences(cls, extra: tuple[str, ...]) -> tuple[str, ...]:
        if not all(sentence.strip() for sentence in extra):
            raise ValueError("has a blank sentence; allowed: some text in each")
        for sentence in extra:
            check_template(sentence)
        return extra

    _placeholders = field_validator("prompt", "name")(check_template)

    @field_validator("system")
    @classmethod
    def _no_field(cls, system: str | None) -> str | None:
        if system and OPENING in system:
            raise ValueError("has a field of the source row; allowed: in prompt, name and extra")
        return system

    @property
    def fields_used(self) -> tuple[str, ...]:
        """The fields of the source row that the prompt uses."""
        return fields_in(self.prompt, self.name, *self.extra)

    def with_long_names(self) -> Self:
        """Return the request of a chained job with its slots of the parent as fields, see `with_long_names`."""
        prompt, name = (text if text is None else with_long_names(text) for text in (self.prompt, self.name))
        return self.model_copy(
            update={"prompt": prompt, "name": name, "extra": tuple(map(with_long_names, self.extra))}
        )


def _check_mode_or_prompt(request: RequestConfig) -> None:
    if (request.mode is None) == (request.prompt is None):
        count = "both" if request.mode else "neither"
        raise ValueError(f"found {count} of mode and prompt; allowed: exactly one of them")
    shaped = [key for key in ("tone", "length", "options", "extra", "name") if getattr(request, key)]
    if request.prompt is not None and shaped:
        raise ValueError(f"found {', '.join(shaped)} beside prompt; a custom prompt is sent unchanged: remove them")
    if request.prompt is not None and not request.prompt.strip():
        raise ValueError("prompt is blank; allowed: some text")


class WeightedRequest(RequestConfig):
    """A request of a mix."""

    weight: float = Field(gt=0)
    """Probability of the request, relative to the other weights of the mix."""


class ExistingAction(StrEnum):
    """What happens to a slot for which the source has a text."""

    USE = "use"
    """The text becomes the caption, with mode `existing`."""
    SKIP = "skip"
    """The row is `skipped`."""


def _present(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    return {"present": True} if value == "present" else value


class ExistingConfig(ConfigPart):
    """Texts of the source in place of captions. A name of a field is short for `{field: ...}`."""

    short_form: ClassVar[str | None] = "field"

    field: str = Field(min_length=1)
    """Metadata field with the text: a column, a key of the `.json` member, or the extension of a text member. It need
    not be in `source.metadata_fields`. Only a text that has a letter or digit counts."""
    when: Annotated[FieldTest, BeforeValidator(_present)] = FieldTest(present=True)
    """`present`, or tests of the text as in `source.where.fields`, such as `{min_length: 20}`. A text that does not
    meet them is ignored: the request is sent."""
    action: ExistingAction = ExistingAction.USE
    """What happens to the slot."""

    @field_validator("when")
    @classmethod
    def _of_a_text(cls, test: FieldTest) -> FieldTest:
        if test.present is False:
            raise ValueError("found present: false; allowed: tests of the text that is taken")
        return test


# pydantic still has a deprecated method of this name, which nothing calls.
warnings.filterwarnings("ignore", 'Field name "schema" in "SlotConfig" shadows')


class SlotConfig(RequestConfig):
    """One of the captions of every image: a request, or a mix from which one request is drawn for each image."""

    slot: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")
    """Name of the caption."""
    mix: tuple[WeightedRequest, ...] = ()
    """Requests from which one is drawn for each image, by weight; always the same one for the same image."""
    samples: int = Field(default=1, ge=1, le=64)
    """Captions sampled for the same prompt, each in its own row: slots `long`, `long.2`, `long.3`, ..."""
    existing: ExistingConfig | None = added(default=None)
    """Take the caption from the source where it has one; no request is sent for it."""
    schema: Annotated[str | None, BeforeValidator(schema_text), AfterValidator(check_schema)] = added(default=None)  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride] - a deprecated method of pydantic
    """A JSON Schema: a mapping, or in a job file the name of a local file. Its captions are JSON that is valid under
    it (docs/json.md)."""

    @model_validator(mode="after")
    def _one_existing_text(self) -> Self:
        if self.existing is not None and self.samples > 1:
            raise ValueError(
                f"found existing beside samples={self.samples}; the source has one text: allowed samples: 1"
            )
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.mix:
            _check_mode_or_prompt(self)
            return self
        beside = [key for key in RequestConfig.model_fields if getattr(self, key)]
        if beside:
            raise ValueError(f"found {', '.join(beside)} beside mix; move them into the entries of the mix")
        return self

    def with_long_names(self) -> Self:
        """As for one request, for each request of the mix."""
        slot = super().with_long_names()
        return slot.model_copy(update={"mix": tuple(entry.with_long_names() for entry in self.mix)})

    @property
    def names(self) -> tuple[str, ...]:
        """The slots of the caption rows: the slot's own name first, then one for each further sample."""
        return (self.slot, *(f"{self.slot}.{number}" for number in range(2, self.samples + 1)))

    @property
    def requests(self) -> tuple[tuple[float, RequestConfig], ...]:
        """(weight, request) in the order of the file; a slot without a mix has one entry."""
        if self.mix:
            return tuple((entry.weight, entry) for entry in self.mix)
        return ((1.0, self),)


def check_slot_names(slots: tuple[SlotConfig, ...]) -> tuple[SlotConfig, ...]:
    """Refuse a list of slots in which a name repeats."""
    refuse_repeats("slot names", [name for slot in slots for name in slot.names])
    return slots
