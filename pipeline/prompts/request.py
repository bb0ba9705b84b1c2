"""Build one request: the template, then the options, exactly as JoyCaption's demo page does, then extra sentences.

The rule is `build_prompt` of fpgaminer/joycaption gradio-app/app.py: the template for the kind of length, a space, the
options joined by spaces, then `str.format`, then `strip`.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config import RequestConfig
from pipeline.config.prompt_fields_config import placeholder_of, slot_of
from pipeline.config.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.models import Generation, Mode, generation_names, load_generation
from pipeline.prompts.row_fields import RowFields
from pipeline.prompts.template import Filled, Given, fill, fill_sentences, is_left_out, join
from schemas.status import Reason

CUSTOM = "custom"
"""The mode of a request with a custom prompt."""

EXISTING = "existing"
"""The mode of a caption row whose text comes from the source."""

_NAME_SLOT = "{name}"
"""In the text of an option that needs `name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request about one image with its complete prompt. The first fields are those of the caption row."""

    slot: str
    mode: str
    tone: str | None
    length_kind: str
    length_words: int | None
    length_class: str | None
    options: tuple[str, ...]
    name: str | None
    prompt: str
    system: str
    schema: str | None = None
    """JSON Schema of the answer, as JSON text."""
    parent_slots: tuple[str, ...] = ()
    """Slots of the parent whose captions the prompt uses, in order."""
    given: tuple[Given, ...] = ()
    """What of the prompt comes from the source row."""
    fault: tuple[Reason, str] | None = None
    """Why the request cannot be sent, with a message: a field has no text. The prompt then holds its placeholder."""

    @property
    def given_items(self) -> tuple[str, ...]:
        """The items of all fields in the prompt."""
        return tuple(item for given in self.given for item in given.items)

    @property
    def given_texts(self) -> dict[str, tuple[str, ...]]:
        """By placeholder, the items that the prompt has in its place."""
        return {placeholder_of(given.field): given.items for given in self.given}


def build_request(
    generation: Generation,
    config: RequestConfig,
    length: int | str | None,
    *,
    slot: str,
    where: str,
    row: RowFields | None = None,
) -> Request:
    """Build a request.

    Args:
        generation: the model's generation.
        config: mode, tone, options and name; its `length` is ignored.
        length: a number of words, a length class, or None.
        slot: name of the slot.
        where: the config key of the request, for messages.
        row: the fields of the source row; without it their placeholders stay in the prompt.

    Raises:
        ConfigError: lists every mode, tone, length or option that the generation does not have.
    """
    system = config.system if config.system is not None else generation.system or ""
    kind = "none" if length is None else "words" if isinstance(length, int) else "class"
    request = Request(
        slot=slot,
        mode=CUSTOM,
        tone=None,
        length_kind="none",
        length_words=None,
        length_class=None,
        options=config.options,
        name=config.name,
        prompt="",
        system=system,
        parent_slots=tuple(name for field in config.fields_used if (name := slot_of(field)) is not None),
    )
    if config.prompt is not None:
        prompt = Filled(config.prompt) if row is None else fill_sentences(config.prompt, row)
        return _with_prompt(request, prompt, row)
    mistakes = list(request_mistakes(generation, config, length, where))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    mode = _mode_of(generation, config)
    request = replace(
        request,
        mode=mode.name,
        tone=mode.tone,
        length_kind=kind,
        length_words=length if isinstance(length, int) else None,
        length_class=length if isinstance(length, str) else None,
    )
    return _worded(generation, _template(mode, length) or "", config, request, row)


def without_prompt(request: Request) -> Request:
    """Return the request of a row whose text comes from the source: nothing is asked."""
    nothing: dict[str, Any] = {"tone": None, "length_words": None, "length_class": None, "name": None, "fault": None}
    empty: dict[str, Any] = {"options": (), "prompt": "", "system": "", "given": (), "parent_slots": ()}
    return replace(request, mode=EXISTING, length_kind="none", **empty, **nothing)


def _worded(
    generation: Generation, template: str, config: RequestConfig, request: Request, row: RowFields | None
) -> Request:
    """The request with the author's words, the options and the extra sentences, each with the row's fields."""
    name = None if config.name is None else fill(config.name, row)
    if name is not None and is_left_out(name, row):
        name = None
    options = [option for option in config.options if name is not None or _NAME_SLOT not in generation.options[option]]
    length = request.length_words or request.length_class
    words = [Filled(template.format(name=None, length=length, word_count=length))]
    words += [_option(generation.options[option], name) for option in options]
    extra = [fill(sentence.strip(), row) for sentence in config.extra]
    kept = [sentence for sentence in extra if not is_left_out(sentence, row)]
    prompt = join([join(words, " ").strip(), *kept], " ").strip()
    request = replace(request, options=tuple(options), name=None if name is None else name.text)
    return _with_prompt(request, prompt, row)


def _option(text: str, name: Filled | None) -> Filled:
    """The text of an option with the name, which may contain braces."""
    if name is None or _NAME_SLOT not in text:
        return Filled(text)
    first, *rest = map(Filled, text.split(_NAME_SLOT))
    return functools.reduce(lambda before, after: before + name + after, rest, first)


def _with_prompt(request: Request, prompt: Filled, row: RowFields | None) -> Request:
    fault = None
    if row is not None and prompt.missing:
        fault = row.fault(next(field for field in prompt.missing if not row.omits(field)))
    elif not prompt.text:
        message = "no sentence of the prompt is left, since fields of the row have no text; write one without a field"
        fault = (Reason.MISSING_FIELD, message)
    return replace(request, prompt=prompt.text, given=prompt.given, fault=fault)


def request_mistakes(
    generation: Generation, config: RequestConfig, length: int | str | None, where: str
) -> Iterator[str]:
    """Yield one line for each thing that the generation was not trained on; a custom prompt may be anything."""
    if config.prompt is not None:
        return
    tones = {mode.tone: mode for mode in generation.modes if mode.name == config.mode}
    if not generation.modes:
        yield f"{where}.mode: found {config.mode!r}; {generation.name} has no modes: write a prompt"
    elif not tones:
        allowed = list(dict.fromkeys(mode.name for mode in generation.modes))
        yield _unknown(f"{where}.mode", str(config.mode), generation.name, allowed)
    elif config.tone is not None and config.tone not in tones:
        named = [tone for tone in tones if tone]
        yield _unknown(f"{where}.tone", config.tone, f"{config.mode} of {generation.name}", named)
    else:
        yield from _length_mistakes(generation, _mode_of(generation, config), length, where)
    for option in config.options:
        if option not in generation.options:
            yield _unknown(f"{where}.options", option, generation.name, list(generation.options)) + _owners(option)
    named = [option for option, text in generation.options.items() if _NAME_SLOT in text]
    used = [option for option in named if option in config.options]
    if used and not config.name:
        yield f"{where}.name: missing, but option {used[0]!r} needs it"
    if config.name and not used:
        hint = f"only option {', '.join(map(repr, named))} uses it: add it" if named else "no option uses it: remove it"
        yield f"{where}.name: found {config.name!r}; {hint}"


def _owners(option: str) -> str:
    """The other generations that have an option."""
    owners = [name for name in generation_names() if option in load_generation(name).options]
    return f"; {', '.join(owners)} has {option!r}" if owners else ""


def _unknown(key: str, found: str, owner: str, allowed: Sequence[str]) -> str:
    listed = ", ".join(allowed) or f"no {key.rpartition('.')[2].rstrip('s')}s: remove the key"
    return f"{key}: found {found!r}; {owner} has: {listed}{did_you_mean(found, allowed)}"


def _mode_of(generation: Generation, config: RequestConfig) -> Mode:
    """The mode of a request without mistakes; without a tone, the mode's first."""
    return next(mode for mode in generation.modes if mode.name == config.mode and config.tone in (None, mode.tone))


def _length_mistakes(generation: Generation, mode: Mode, length: int | str | None, where: str) -> Iterator[str]:
    forms = [("a class", mode.length_class), ("a number of words", mode.word_count)]
    if length is not None and (mode.word_count if isinstance(length, int) else mode.length_class) is None:
        allowed = " or ".join(name for name, form in forms if form) or "no length: remove the key"
        yield f"{where}.length: found {length!r}; {mode.name} of {generation.name} takes {allowed}"
    elif isinstance(length, str) and length not in generation.length_classes:
        classes = generation.length_classes
        yield (
            f"{where}.length: found {length!r}; allowed: {', '.join(classes)}, or a number of words"
            f"{did_you_mean(length, classes)}"
        )


def _template(mode: Mode, length: int | str | None) -> str | None:
    if length is None:
        return mode.no_length
    return mode.word_count if isinstance(length, int) else mode.length_class
