"""Renders pages from templates; each page is one self-contained file. The only module that imports jinja2.

All that is filled in is escaped. Beyond that a content security policy in the page forbids every request and every
script but the page's own, which it names by hash.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page; raises if a value of the template is missing."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "share": share}
    script, style = (_text(environment, name) for name in ("page.js", "page.css"))
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'"
    fixed = {"script": Markup(script), "style": Markup(style), "policy": policy}
    return environment.get_template(template).render({**values, **fixed})


def number(value: float | None) -> str:
    """Return a count for people: 1,234."""
    return "–" if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """Return a share in percent, with as many digits as are significant."""
    if value is None:
        return "–"
    if 0 < value < 0.001:
        return "<0.1 %"
    return "100 %" if value == 1 else f"{value:.1%}".replace("%", " %")


def trusted(svg: str) -> Markup:
    """Mark a figure of `pipeline.figures` as HTML: its text is escaped already."""
    return Markup(svg)


def choices(labels: Iterable[Mapping[str, Sequence[str]]], *more: tuple[str, str]) -> list[tuple[str, str, list[str]]]:
    """Return the filters of a page as (field, title, values), with the values that occur in the labels of its rows."""
    fields = (("mode", "Mode"), ("status", "Status"), ("reason", "Reason"), *more)
    listed = list(labels)
    return [(name, title, sorted({value for row in listed for value in row[name] if value})) for name, title in fields]


def link_of(url: str) -> str | None:
    """Return the address of a shard that a browser can open: of local files and http; None for others."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return PurePosixPath(url).as_uri() if url.startswith("/") else None
    return quote(url, safe=":/?&=%#@,;+~") if scheme in ("http", "https") else None


def _text(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
