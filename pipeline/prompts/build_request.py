"""Build one request: the template, then the options, exactly as JoyCaption's demo page does.

The rule is `build_prompt` of fpgaminer/joycaption gradio-app/app.py: the template for the kind of length, a space, the
options joined by spaces, then `str.format`, then `strip`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import RequestConfig
from pipeline.errors import ConfigError
from pipeline.models import Generation, Mode, generation_names, load_generation

CUSTOM = "custom"
"""The mode of a request with a custom prompt."""

_NAME_SLOT = "{name}"
"""In the text of an option that needs `name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request about one image with its complete prompt. The fields are those of the caption row."""

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


def build_request(
    generation: Generation, config: RequestConfig, length: int | str | None, *, slot: str, where: str
) -> Request:
    """Build a request.

    Args:
        generation: the model's generation.
        config: mode, tone, options and name; its `length` is ignored.
        length: a number of words, a length class, or None.
        slot: name of the slot.
        where: the config key of the request, for messages.

    Raises:
        ConfigError: the generation does not have the mode, tone, kind of length, length class or option.
    """
    system = config.system if config.system is not None else generation.system or ""
    if config.prompt is not None:
        return _request(slot, CUSTOM, None, None, config, config.prompt, system)
    mode = _find_mode(generation, config, where)
    template = _template(generation, mode, length, where)
    options = [_option(generation, option, where) for option in config.options]
    _check_name(generation, config, where)
    text = " ".join([template, *options])
    prompt = text.format(name=config.name, length=length, word_count=length).strip()
    return _request(slot, mode.name, mode.tone, length, config, prompt, system)


def _request(
    slot: str, mode: str, tone: str | None, length: int | str | None, config: RequestConfig, *texts: str
) -> Request:
    prompt, system = texts
    kind = "none" if length is None else "words" if isinstance(length, int) else "class"
    return Request(
        slot=slot,
        mode=mode,
        tone=tone,
        length_kind=kind,
        length_words=length if isinstance(length, int) else None,
        length_class=length if isinstance(length, str) else None,
        options=config.options,
        name=config.name,
        prompt=prompt,
        system=system,
    )


def _find_mode(generation: Generation, config: RequestConfig, where: str) -> Mode:
    modes = [mode for mode in generation.modes if mode.name == config.mode]
    if not modes:
        allowed = ", ".join(dict.fromkeys(mode.name for mode in generation.modes))
        raise ConfigError(f"{where}.mode: found {config.mode!r}; {generation.name} has: {allowed}")
    if config.tone is None:
        return modes[0]
    for mode in modes:
        if mode.tone == config.tone:
            return mode
    tones = ", ".join(mode.tone for mode in modes if mode.tone) or "no tones: remove the key"
    raise ConfigError(f"{where}.tone: found {config.tone!r}; {config.mode} of {generation.name} has: {tones}")


def _template(generation: Generation, mode: Mode, length: int | str | None, where: str) -> str:
    if length is None:
        return mode.no_length
    template = mode.word_count if isinstance(length, int) else mode.length_class
    if template is None:
        forms = [("a class", mode.length_class), ("a number of words", mode.word_count)]
        allowed = " or ".join(name for name, form in forms if form) or "no length: remove the key"
        raise ConfigError(f"{where}.length: found {length!r}; {mode.name} of {generation.name} takes {allowed}")
    if isinstance(length, str) and length not in generation.length_classes:
        raise ConfigError(
            f"{where}.length: found {length!r}; allowed: {', '.join(generation.length_classes)}, or a number of words"
        )
    return template


def _option(generation: Generation, option: str, where: str) -> str:
    text = generation.options.get(option)
    if text is not None:
        return text
    others = [name for name in generation_names() if option in load_generation(name).options]
    elsewhere = f" ({', '.join(others)} has it)" if others else ""
    allowed = ", ".join(generation.options) or "none"
    raise ConfigError(f"{where}.options: found {option!r}{elsewhere}; {generation.name} has: {allowed}")


def _check_name(generation: Generation, config: RequestConfig, where: str) -> None:
    named = [option for option, text in generation.options.items() if _NAME_SLOT in text]
    used = [option for option in named if option in config.options]
    if used and not config.name:
        raise ConfigError(f"{where}.name: missing, but option {used[0]!r} needs it")
    if config.name and not used:
        hint = f"only option {', '.join(map(repr, named))} uses it: add it" if named else "no option uses it: remove it"
        raise ConfigError(f"{where}.name: found {config.name!r}; {hint}")
