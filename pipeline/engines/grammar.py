"""The grammar of a JSON Schema, made as vLLM makes it: the only module that imports xgrammar."""

from __future__ import annotations

BACKEND = "xgrammar"
"""Of vLLM's backends. The choice `auto` falls back to others, whose grammars enforce other keywords."""


def grammar_fault(schema: str) -> str | None:
    """Return why a schema has no grammar; None if it has one, or if xgrammar is not on this machine.

    The process of an engine has xgrammar, so that an engine with such a schema does not start.
    """
    try:
        # It imports torch, which takes seconds; only jobs with a schema need it.
        from xgrammar import Grammar  # noqa: PLC0415
    except ImportError:
        return None
    try:
        Grammar.from_json_schema(schema, any_whitespace=False)
    except (RuntimeError, ValueError) as err:
        return " ".join(str(err).split())
    return None
