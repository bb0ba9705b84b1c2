"""The verdict on one text: the rules in order, and the effect of what they find. Pure; no engine, no Ray.

Rules run first, then the corrections (cut, tags, opening), then the length flags of the result. The first finding of a
rule with action reject is the reason of the row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.config import Action, Openings, QualityConfig, Truncated
from pipeline.models import Form, form_of
from pipeline.quality.clip_tokens import CountClipTokens, clip_counter
from pipeline.quality.json_answer import JsonAnswer, read_answer, texts_in
from pipeline.quality.length import length_flags
from pipeline.quality.openings import meta_opening, remove_opening
from pipeline.quality.repetition import words_of
from pipeline.quality.rule import CheckedText, Finding, JudgedRequest, WithinJson
from pipeline.quality.rules import RULES, action_of, check_rules
from pipeline.quality.tag_lists import normalize_tags, parse_tags, unknown_tags
from pipeline.quality.truncation import cut_truncated
from pipeline.quality.user import CompiledRule, compile_rules, find_by_user
from schemas.status import USER_FLAG, Flag, Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of the rules for one text."""

    status: Status
    text: str
    """If ok, the caption after corrections, else the original text."""
    reason: str | None = None
    """A `Reason`, or the name of a rule that is not among them."""
    message: str | None = None
    flags: tuple[str, ...] = ()
    unknown_tags: int | None = None
    """None for prose, and without a vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRules:
    """The config with everything that is prepared once per process."""

    config: QualityConfig
    user: tuple[CompiledRule, ...]
    vocabulary: frozenset[str] | None
    count_clip_tokens: CountClipTokens | None

    def checked(self, request: JudgedRequest, text: str, form: Form) -> CheckedText:
        """Return a text as rules see it."""
        return CheckedText(
            text=text,
            words=words_of(text),
            form=form,
            request=request,
            config=self.config,
            count_clip_tokens=self.count_clip_tokens,
        )


def prepare_rules(
    config: QualityConfig, vocabulary: frozenset[str] | None, clip_tokenizer: str | None = None
) -> PreparedRules:
    """Prepare the rules of a config.

    Args:
        config: the config.
        vocabulary: the content of its `tags.vocabulary`.
        clip_tokenizer: the content of its `clip.tokenizer`, as the JSON text of the tokenizers library.

    Raises:
        ConfigError: `actions` names an unknown rule, or a rule lacks a setting or a library.
    """
    check_rules(config)
    counter = None if clip_tokenizer is None else clip_counter(clip_tokenizer)
    user = compile_rules(config.rules)
    return PreparedRules(config=config, user=user, vocabulary=vocabulary, count_clip_tokens=counter)


def evaluate(rules: PreparedRules, request: JudgedRequest, text: str, finish_reason: str | None) -> Verdict:
    """Evaluate a text by the rules of version `pipeline.recipe.QUALITY_RULES`."""
    if request.schema is not None:
        return _evaluate_json(rules, request, request.schema, text, finish_reason)
    if not any(char.isalnum() for char in text):
        return _rejected(text, Reason.EMPTY_CAPTION, "empty_caption: the model ended without writing a word")
    if finish_reason == "repetition":
        # sampling.stop_loops ended the text, so it is incomplete in any case.
        return _rejected(text, Reason.LOOP, "stopped_loop: the engine stopped a repetition")
    checked = rules.checked(request, text, form_of(request.mode))
    flags: list[str] = []
    for reason, flag, action, finding in _findings(rules, checked):
        if action is Action.REJECT:
            return _rejected(text, reason, finding.message)
        flags.append(flag)
    return _corrected(rules, checked, finish_reason, Verdict(status=Status.OK, text=text, flags=tuple(flags)))


def flag_text(rules: PreparedRules, request: JudgedRequest, text: str) -> tuple[str, ...]:
    """Return what the rules find in a text that the model did not write, as flags: nothing rejects or changes it.

    A text for a request with a JSON Schema is valid under it.
    """
    if request.schema is not None:
        findings = _json_findings(rules, request, tuple(texts_in(json.loads(text))))
    else:
        findings = _findings(rules, rules.checked(request, text, form_of(request.mode)))
    return tuple(dict.fromkeys(flag for _, flag, _, _ in findings))


def _evaluate_json(
    rules: PreparedRules, request: JudgedRequest, schema: str, text: str, finish_reason: str | None
) -> Verdict:
    """Evaluate an answer under a JSON Schema: no corrections, no flags of the length."""
    if finish_reason == "repetition":
        return _rejected(text, Reason.LOOP, "stopped_loop: the engine stopped a repetition")
    answer = read_answer(text, schema, finish_reason)
    if not isinstance(answer, JsonAnswer):
        reason, fault = answer
        return _rejected(text, reason, fault.message)
    flags: list[str] = []
    for reason, flag, action, finding in _json_findings(rules, request, answer.texts):
        if action is Action.REJECT:
            return _rejected(text, reason, finding.message)
        flags.append(flag)
    return Verdict(status=Status.OK, text=answer.canonical, flags=tuple(flags))


def _json_findings(
    rules: PreparedRules, request: JudgedRequest, texts: Sequence[str]
) -> Iterator[tuple[str, str, Action, Finding]]:
    """The findings in the texts of a JSON value."""
    whole = rules.checked(request, "\n".join(texts), Form.ANY)
    each = tuple(rules.checked(request, text, Form.ANY) for text in texts)
    within = {WithinJson.NOTHING: (), WithinJson.ALL: (whole,), WithinJson.EACH: each}
    return _findings(rules, whole, within)


def _rejected(text: str, reason: str, message: str) -> Verdict:
    return Verdict(status=Status.REJECTED, text=text, reason=reason, message=message)


def _findings(
    rules: PreparedRules, checked: CheckedText, within: Mapping[WithinJson, Sequence[CheckedText]] | None = None
) -> Iterator[tuple[str, str, Action, Finding]]:
    """Yield (reason, flag, action, finding) of the rules that are not off, in the order of the table.

    Args:
        rules: the rules.
        checked: the text; of JSON, all texts within it.
        within: of JSON, what each rule checks.
    """
    for rule in RULES.values():
        action = action_of(rules.config, rule)
        texts = (checked,) if within is None else within[rule.within_json]
        finding = None if action is Action.OFF else next(filter(None, map(rule.check, texts)), None)
        if finding:
            yield rule.name, str(rule.name), action, finding
    num_words = len(checked.text.split())
    for compiled in rules.user:
        action = compiled.rule.action
        off = action is Action.OFF
        finding = None if off else find_by_user(compiled, checked.request.mode, num_words, checked.text)
        if finding:
            yield Reason.USER_RULE, f"{USER_FLAG}{compiled.rule.name}", action, finding


def _corrected(rules: PreparedRules, checked: CheckedText, finish_reason: str | None, verdict: Verdict) -> Verdict:
    """Cut, normalise, remove the opening, then flag the length of the result."""
    form = checked.form
    if finish_reason == "length":
        verdict = _truncated(rules.config.truncated, form, verdict)
    if verdict.status is Status.OK and form is Form.TAGS:
        verdict = _tags(rules, verdict)
    if verdict.status is Status.OK and form in (Form.PROSE, Form.ANY):
        verdict = _opening(rules.config.openings, verdict)
    if verdict.status is not Status.OK:
        return verdict
    flags = length_flags(checked.request, len(verdict.text.split()), rules.config.length_tolerance)
    return replace(verdict, flags=(*verdict.flags, *flags))


def _truncated(choice: Truncated, form: Form, verdict: Verdict) -> Verdict:
    if choice is Truncated.FLAG:
        return _flagged(verdict, Flag.TRUNCATED)
    if choice is Truncated.REJECT:
        return _rejected(verdict.text, Reason.TRUNCATED, "truncated: sampling.max_tokens ended the text")
    kept = cut_truncated(verdict.text, form)
    if kept is None:
        return _rejected(verdict.text, Reason.TRUNCATED, "truncated: no complete sentence or tag to keep")
    return _flagged(replace(verdict, text=kept), Flag.TRUNCATED, Flag.CUT)


def _tags(rules: PreparedRules, verdict: Verdict) -> Verdict:
    config = rules.config.tags
    if config.normalize:
        text = normalize_tags(verdict.text, config)
        if not text:
            return _rejected(verdict.text, Reason.EMPTY_CAPTION, "empty_caption: no tag in the list")
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
        return _rejected(verdict.text, Reason.META_OPENING, f"meta_opening: {opening!r}")
    return _flagged(replace(verdict, text=kept), Flag.OPENING_REMOVED)


def _flagged(verdict: Verdict, *flags: Flag) -> Verdict:
    return replace(verdict, flags=(*verdict.flags, *flags))
