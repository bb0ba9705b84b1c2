"""The base of every config section: frozen, unknown keys are errors, and URLs and messages hold no secrets."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator


class ConfigPart(BaseModel):
    """A section of the config. An unknown key raises; a section never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_form: ClassVar[str | None] = None
    """The field that a bare string stands for: `model: standin` is short for `model: {id: standin}`."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {cls.short_form: value} if cls.short_form and isinstance(value, str) else value


def _as_list(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    return [value] if isinstance(value, str | dict) else value


AS_LIST = BeforeValidator(_as_list)
"""Annotates a tuple of texts or sections: a single one needs no brackets."""


def _check_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as err:
        raise ValueError(f"not a regular expression: {err}") from err
    return pattern


Expression = Annotated[str, AfterValidator(_check_expression)]
"""A regular expression."""


def refuse_repeats(what: str, names: Sequence[str]) -> None:
    """Raise ValueError if a name occurs twice; `what` says which names these are."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} {', '.join(twice)} repeat; allowed: each once")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config of two layers: a value of `above` replaces that of `below`, and mappings are merged by key."""
    result = dict(below)
    for key, value in above.items():
        lower = result.get(key)
        result[key] = merged(lower, value) if isinstance(lower, Mapping) and isinstance(value, Mapping) else value
    return result


# A secret key of AWS may contain a slash, which then ends the apparent bucket; no bucket name contains a colon.
_USER = re.compile(r"(?<=://)[^/@\s]+@|(?:(?<=s3://)|(?<=gs://))[^/:\s]*:\S*@")


def without_user(text: str) -> str:
    """Return a text in which the user part of each URL, which may hold a secret, is replaced by `***`."""
    return _USER.sub("***@", text)


_SECRET_NAME = re.compile(r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|APIKEY|KEY)$", re.IGNORECASE)
"""Names of environment variables with a secret value: AWS_SECRET_ACCESS_KEY, HF_TOKEN, OPENAI_API_KEY."""

SECRET_CHARS = 8
"""A shorter value of such a variable is not taken for a secret: replacing `test` or `1` would garble every message."""


def without_secrets(text: str, *known: str) -> str:
    """Return a text without secrets: users in URLs, those in `known`, and those of the environment.

    A server may echo a secret as plain text, in JSON, or encoded in a URL.
    """
    environment = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    secrets = {value for value in environment if len(value) >= SECRET_CHARS} | set(filter(None, known))
    forms = {
        form
        for secret in secrets
        for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe=""))
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return without_user(text)


def _refuse_user(url: str) -> str:
    if _USER.search(url):
        raise ValueError("allowed: no '@' before the path; put credentials into the environment")
    return url


Url = Annotated[str, AfterValidator(_refuse_user)]
"""A local path or a URL. A job is stored in its output and shown, so a URL with credentials is refused."""
