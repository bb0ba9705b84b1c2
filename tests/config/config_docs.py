"""Writes docs/config.md from the config's fields: `python -m tests.config.config_docs`."""

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.config import CorpusConfig, JobConfig, corpus_export_config, export_config
from pipeline.config.config_errors import models_in
from pipeline.config.corpus_export_config import CorpusExportConfig
from pipeline.config.export_config import ExportConfig

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
COMMAND = "python -m tests.config.config_docs"

INTRODUCTION = f"""# Configuration

All keys of a captioning job, a corpus and their exports. `{COMMAND}` writes this page from the
docstrings of `pipeline/config`; do not edit it.

- A key is given in the YAML file, in the environment (`JOYFLEET_SAMPLING__TEMPERATURE=0.4`) or on the command line
  (`--set sampling.temperature=0.4`). The command line overrides the environment, which overrides the file.
- `[]` after a key stands for each item of a list, `{{}}` for each entry of a mapping.
- A config with mistakes is refused as a whole: one line for each of them, with what was found and what is allowed.
"""

ROOTS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("Job", JobConfig, "The file of `joyfleet caption`, `preview`, `plan`, `submit` and `playground`."),
    ("Corpus", CorpusConfig, "The file of `joyfleet corpus`. `render` and `words` have the defaults of the preset."),
    ("Export", ExportConfig, "The options of `joyfleet export`, which takes no file."),
    ("Corpus export", CorpusExportConfig, "The options of `joyfleet export-corpus`, which takes no file."),
)
FLAGS = {ExportConfig: export_config.flag_of, CorpusExportConfig: corpus_export_config.flag_of}
"""Configs whose keys are options of a command."""


def page() -> str:
    """Return docs/config.md."""
    parts = [INTRODUCTION]
    for title, root, introduction in ROOTS:
        parts.append(f"\n## {title}\n\n{introduction}\n")
        parts += [_section(paths, part) for paths, part in _parts(root, [""])]
    return "".join(parts)


def _parts(
    part: type[BaseModel], paths: list[str], above: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[list[str], type[BaseModel]]]:
    """A part of a config and those below it, each with its paths: several fields of a part may have one form.

    A part that holds itself is not repeated.
    """
    yield paths, part
    below: dict[type[BaseModel], list[str]] = {}
    for name, field in part.model_fields.items():
        suffix = _suffix(field.annotation)
        for nested in models_in(field.annotation):
            if nested not in (*above, part):
                below.setdefault(nested, []).append(f"{paths[0]}.{name}{suffix}".lstrip("."))
    for nested, own in below.items():
        yield from _parts(nested, own, (*above, part))


def _suffix(annotation: object) -> str:
    kinds = {typing.get_origin(option) for option in _options(annotation)}
    return "[]" if tuple in kinds else "{}" if dict in kinds else ""


def _options(annotation: object) -> list[typing.Any]:
    """The members of a union, without the wrapping of `Annotated`."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (types.UnionType, typing.Union):
        return [option for member in typing.get_args(annotation) for option in _options(member)]
    return [annotation]


def _section(paths: list[str], part: type[BaseModel]) -> str:
    docs = field_docs(part)
    path = paths[0]
    same = f" The same keys: {', '.join(f'`{other}`' for other in paths[1:])}." if paths[1:] else ""
    heading = f"\n### `{path}`\n" if path else ""
    lines = [
        f"{heading}\n{_text(part.__doc__ or '')}{same}\n" if path else "",
        "\n| key | type | default | meaning |\n|---|---|---|---|\n",
    ]
    for name, field in part.model_fields.items():
        flag = FLAGS.get(part)
        shown = flag(name) if flag else f"{path}.{name}".lstrip(".")
        limits = _limits(field)
        kind = _cell(_type(field.annotation)) + (f", {_cell(limits)}" if limits else "")
        meaning = " ".join(filter(None, (_text(docs[name]), _choices(field.annotation))))
        lines.append(f"| `{shown}` | {kind} | {_default(field)} | {_cell(meaning)} |\n")
    return "".join(lines)


def field_docs(part: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of each field, inherited ones too.

    Raises:
        ValueError: a field has none.
    """
    docs: dict[str, str] = {}
    for owner in reversed(part.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            docs |= _docs_of_class(owner)
    missing = sorted(set(part.model_fields) - set(docs))
    if missing:
        raise ValueError(f"{part.__name__}: no docstring below the field {', '.join(missing)}; write one")
    return docs


def _docs_of_class(owner: type) -> dict[str, str]:
    """The string that follows each annotated name in the body of a class."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = str(following.value.value)
    return docs


_SCALARS = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}


def _type(annotation: typing.Any) -> str:
    return " or ".join(dict.fromkeys(_one_type(option) for option in _options(annotation)))


def _one_type(kind: typing.Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        items = arguments[:1] if arguments[-1] is Ellipsis else arguments
        return "list of " + (_type(items[0]) if len(set(items)) == 1 else f"({', '.join(map(_type, items))})")
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if origin is typing.Literal or (isinstance(kind, type) and issubclass(kind, StrEnum)):
        return "name"
    return _SCALARS.get(kind, "mapping")


def _choices(annotation: object) -> str:
    enums = [option for option in _leaves(annotation) if isinstance(option, type) and issubclass(option, StrEnum)]
    literals = [
        str(value)
        for option in _options(annotation)
        if typing.get_origin(option) is typing.Literal
        for value in typing.get_args(option)
    ]
    texts: list[str] = []
    for enum in enums:
        docs = _enum_docs(enum)
        texts += [
            f"`{member.value}`" + (f" ({docs[member.name].rstrip('.')})" if member.name in docs else "")
            for member in enum
        ]
    texts += [f"`{value}`" for value in literals]
    return f"Allowed: {', '.join(texts)}." if texts else ""


def _leaves(annotation: object) -> Iterator[object]:
    for option in _options(annotation):
        arguments = typing.get_args(option)
        if arguments and typing.get_origin(option) is not typing.Literal:
            for argument in arguments:
                yield from _leaves(argument)
        else:
            yield option


def _enum_docs(enum: type[StrEnum]) -> dict[str, str]:
    [body] = ast.parse(textwrap.dedent(inspect.getsource(enum))).body
    assert isinstance(body, ast.ClassDef)
    return {
        statement.targets[0].id: _text(str(following.value.value))
        for statement, following in zip(body.body, body.body[1:], strict=False)
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }


_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _limits(field: FieldInfo) -> str:
    limits = [*field.metadata, *(item for option in _annotated(field.annotation) for item in option)]
    texts: list[str] = []
    for limit in limits:
        texts += [f"{sign} {_number(getattr(limit, name))}" for name, sign in _SIGNS.items() if hasattr(limit, name)]
        if getattr(limit, "pattern", None):
            texts.append(f"pattern `{limit.pattern}`")
        if getattr(limit, "min_length", None) and typing.get_origin(field.annotation) is tuple:
            texts.append("at least one")
    return ", ".join(dict.fromkeys(texts))


def _annotated(annotation: object) -> Iterator[list[typing.Any]]:
    if typing.get_origin(annotation) is typing.Annotated:
        yield [part for item in typing.get_args(annotation)[1:] for part in getattr(item, "metadata", [item])]


def _number(value: float) -> str:
    return "2^63" if value == 2**63 else f"{value:,}".replace(",", " ")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, bool) or value is None:
        return f"`{str(value).lower().replace('none', 'null')}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`" if len(value) < 10 else "see `pipeline/config`"
    if isinstance(value, dict):
        return f"`{{{', '.join(f'{key}: {item}' for key, item in value.items())}}}`"
    return f"`{value}`"


def _text(doc: str) -> str:
    return " ".join(doc.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
