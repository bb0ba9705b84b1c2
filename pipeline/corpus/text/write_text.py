"""Writes a planned text, the given half and the half to be predicted, in TIPO's or DanTagGen's format."""

from pipeline.corpus.text.text_plan import TextPlan
from schemas.corpus_row import Task


def write_text(plan: TextPlan) -> tuple[str, str]:
    """Return (user, output); the text is `user + output`.

    The user half ends where a model starts to generate: after the given tags, after the line end of a given caption,
    or after the target line if nothing is given.
    """
    if plan.input_end:
        return _write_dantaggen(plan)
    head = "".join(f"{line}\n" for line in plan.given) + f"target: {_target(plan)}\n"
    sections = plan.task.sections
    if plan.bare_long:
        return f"{head}short: {plan.short}\nlong:", f"{plan.long}"
    if sections[0] == "tag":
        user, output = _open_with_tags(head, plan)
        later = [_section(name, plan) for name in sections[1:]]
        output = "\n".join([output, *later, *plan.predicted])
    else:
        user = f"{head}{_section(sections[0], plan)}\n"
        later = [_section(name, plan) for name in sections[1:]]
        output = "\n".join([*later, *plan.predicted])
    return user, output


def _target(plan: TextPlan) -> str:
    length = f"<|{plan.length}|>" if plan.length else ""
    task = f"<|{plan.task}|>" if plan.task is not Task.TAG else ""
    gen_meta = "<|gen_meta|>" if plan.predicted else ""
    return " ".join(part for part in (length, task, gen_meta) if part)


def _open_with_tags(head: str, plan: TextPlan) -> tuple[str, str]:
    given, rest = plan.tags[: plan.tags_given], plan.tags[plan.tags_given :]
    if not given:
        return head, f"tag: {', '.join(rest)}"
    return f"{head}tag: {', '.join(given)}", f", {', '.join(rest)}"


def _section(name: str, plan: TextPlan) -> str:
    if name == "tag":
        return f"tag: {', '.join(plan.tags)}"
    return f"{name}: {plan.short if name == 'short' else plan.long}"


def _write_dantaggen(plan: TextPlan) -> tuple[str, str]:
    head = "".join(f"{line}\n" for line in plan.given) + f"target: <|{plan.length}|>\n"
    given, rest = plan.tags[: plan.tags_given], plan.tags[plan.tags_given :]
    return f"{head}general: {', '.join(given)}<|input_end|>", ", ".join(rest)
