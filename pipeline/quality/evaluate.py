"""The verdict on one text: which rules run, in which order, and what their finds do to it. Pure; no engine, no Ray.

Finds come first, then what mends a text (the cut, the tags, the opening), then flags on what is left.
The first find that rejects is the row's reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.config import Action, Openings, QualityConfig, Truncated
from pipeline.quality.finding import Finding, JudgedRequest
from pipeline.quality.form import Form, find_wrong_form, form_of, is_tag_list
from pipeline.quality.length import length_flags
from pipeline.quality.openings import meta_opening, remove_opening
from pipeline.quality.refusal import find_prompt_echo, find_refusal, find_special_tokens
from pipeline.quality.repetition import find_loop, words_of
from pipeline.quality.script import find_foreign_script
from pipeline.quality.tag_lists import normalize_tags, parse_tags, unknown_tags
from pipeline.quality.truncation import cut_truncated
from pipeline.quality.user import CompiledRule, compile_rules, find_by_user
from schemas.status import USER_FLAG, Flag, Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rules say of a text."""

    status: Status
    text: str
    """The caption as it is to stand when ok, else the text as it came."""
    reason: Reason | None = None
    message: str | None = None
    flags: tuple[str, ...] = ()
    unknown_tags: int | None = None
    """Without a vocabulary, and for prose, None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The config with all that is prepared once per process."""

    config: QualityConfig
    user: tuple[CompiledRule, ...]
    vocabulary: frozenset[str] | None


def make_rules(config: QualityConfig, vocabulary: frozenset[str] | None) -> Rules:
    """Prepare the rules of a config; `vocabulary` is what its `tags.vocabulary` holds."""
    return Rules(config=config, user=compile_rules(config.rules), vocabulary=vocabulary)


def evaluate(rules: Rules, asked: JudgedRequest, text: str, finish_reason: str | None) -> Verdict:
    """Judge a text by the rules of version `pipeline.recipe.QUALITY_RULES`."""
    if not any(char.isalnum() for char in text):
        found = Finding(Reason.EMPTY_CAPTION, "empty_caption", "the model ended without writing a word")
        return _rejected(text, found)
    form = form_of(asked.mode)
    flags: list[str] = []
    for found, action in _finds(rules, asked, form, text, finish_reason):
        if action is Action.REJECT:
            return _rejected(text, found)
        flags.append(f"{USER_FLAG}{found.rule}" if found.reason is Reason.USER_RULE else Flag(found.reason.value))
    return _mended(rules, asked, form, finish_reason, Verdict(status=Status.OK, text=text, flags=tuple(flags)))


def _rejected(text: str, found: Finding) -> Verdict:
    return Verdict(status=Status.REJECTED, text=text, reason=found.reason, message=found.message)


def _finds(
    rules: Rules, asked: JudgedRequest, form: Form, text: str, finish_reason: str | None
) -> Iterator[tuple[Finding, Action]]:
    """Yield what the rules that are not off find, the gravest first."""
    if finish_reason == "repetition":
        # sampling.stop_loops ended it: whatever it would have become, it is no whole text.
        yield Finding(Reason.LOOP, "stopped_loop", "the engine stopped a repetition"), Action.REJECT
    words = words_of(text)
    actions = rules.config.actions
    if actions.special_tokens is not Action.OFF:
        yield from _with(actions.special_tokens, find_special_tokens(text))
    if actions.refusal is not Action.OFF:
        yield from _with(actions.refusal, find_refusal(text))
    if actions.loop is not Action.OFF:
        listed = form is Form.TAGS or (form is not Form.PROSE and is_tag_list(words, text))
        yield from _with(actions.loop, find_loop(words, text, tags=listed))
    if actions.prompt_echo is not Action.OFF:
        yield from _with(actions.prompt_echo, find_prompt_echo(asked.prompt, words))
    if actions.foreign_script is not Action.OFF:
        yield from _with(actions.foreign_script, find_foreign_script(rules.config.scripts, text))
    if actions.wrong_form is not Action.OFF:
        yield from _with(actions.wrong_form, find_wrong_form(form, words, text))
    yield from _user_finds(rules.user, asked.mode, text)


def _user_finds(user: Sequence[CompiledRule], mode: str, text: str) -> Iterator[tuple[Finding, Action]]:
    num_words = len(text.split())
    for compiled in user:
        if compiled.rule.action is not Action.OFF:
            yield from _with(compiled.rule.action, find_by_user(compiled, mode, num_words, text))


def _with(action: Action, found: Finding | None) -> Iterator[tuple[Finding, Action]]:
    if found:
        yield found, action


def _mended(rules: Rules, asked: JudgedRequest, form: Form, finish_reason: str | None, verdict: Verdict) -> Verdict:
    """Cut, normalise, take the opening away, then flag what is left."""
    if finish_reason == "length":
        verdict = _truncated(rules.config.truncated, form, verdict)
    if verdict.status is Status.OK and form is Form.TAGS:
        verdict = _tags(rules, verdict)
    if verdict.status is Status.OK and form in (Form.PROSE, Form.ANY):
        verdict = _opening(rules.config.openings, verdict)
    if verdict.status is not Status.OK:
        return verdict
    flags = length_flags(asked, len(verdict.text.split()), rules.config.length_tolerance)
    return replace(verdict, flags=(*verdict.flags, *flags))


def _truncated(choice: Truncated, form: Form, verdict: Verdict) -> Verdict:
    if choice is Truncated.FLAG:
        return _flagged(verdict, Flag.TRUNCATED)
    if choice is Truncated.REJECT:
        return _rejected(verdict.text, Finding(Reason.TRUNCATED, "truncated", "sampling.max_tokens ended the text"))
    kept = cut_truncated(verdict.text, form)
    if kept is None:
        return _rejected(verdict.text, Finding(Reason.TRUNCATED, "truncated", "no whole sentence or tag to keep"))
    return _flagged(replace(verdict, text=kept), Flag.TRUNCATED, Flag.CUT)


def _tags(rules: Rules, verdict: Verdict) -> Verdict:
    config = rules.config.tags
    if config.normalize:
        text = normalize_tags(verdict.text, config)
        if not text:
            return _rejected(verdict.text, Finding(Reason.EMPTY_CAPTION, "empty_caption", "no tag in the list"))
        if text != verdict.text:
            verdict = _flagged(replace(verdict, text=text), Flag.TAGS_NORMALIZED)
    if rules.vocabulary is None:
        return verdict
    num = len(unknown_tags(parse_tags(verdict.text), rules.vocabulary))
    verdict = replace(verdict, unknown_tags=num)
    return _flagged(verdict, Flag.UNKNOWN_TAGS) if num else verdict


def _opening(choice: Openings, verdict: Verdict) -> Verdict:
    opening = meta_opening(verdict.text)
    if opening is None:
        return verdict
    if choice is Openings.FLAG:
        return _flagged(verdict, Flag.META_OPENING)
    kept = remove_opening(verdict.text) if choice is Openings.REMOVE else None
    if kept is None:
        return _rejected(verdict.text, Finding(Reason.META_OPENING, "meta_opening", repr(opening)))
    return _flagged(replace(verdict, text=kept), Flag.OPENING_REMOVED)


def _flagged(verdict: Verdict, *flags: Flag) -> Verdict:
    return replace(verdict, flags=(*verdict.flags, *flags))
