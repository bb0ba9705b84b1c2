"""What every part of a config shares: frozen, unknown keys are errors, and no secret stands in a URL or a message."""

import json
import os
import re
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict


class ConfigPart(BaseModel):
    """A part of the config. An unknown key raises; a built part never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# A secret key of AWS may hold a slash, which then ends what looks like the bucket; no bucket's name holds a colon.
_USER = re.compile(r"(?<=://)[^/@\s]+@|(?:(?<=s3://)|(?<=gs://))[^/:\s]*:\S*@")


def without_user(text: str) -> str:
    """Return a text with the user part of its URLs, where a secret may stand, blotted out."""
    return _USER.sub("***@", text)


_SECRET_NAME = re.compile(r"(^|_)(SECRET|TOKEN|PASSWORD|PASSWD|APIKEY|KEY)$", re.IGNORECASE)
"""Of an environment variable whose value is a secret: AWS_SECRET_ACCESS_KEY, HF_TOKEN, OPENAI_API_KEY."""

SECRET_CHARS = 8
"""A shorter value of such a variable is no secret, and blotting out `test` or `1` would ruin every message."""


def without_secrets(text: str, *known: str) -> str:
    """Return a text for people without secrets: users of URLs, those in `known`, and those of the environment.

    A server may say back what it was sent, plainly or as JSON or a part of a URL has it.
    """
    environment = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    secrets = {value for value in environment if len(value) >= SECRET_CHARS} | set(filter(None, known))
    forms = {form for one in secrets for form in (one, json.dumps(one)[1:-1], repr(one)[1:-1], quote(one, safe=""))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return without_user(text)


def _refuse_user(url: str) -> str:
    if _USER.search(url):
        raise ValueError("allowed: no '@' before the path; credentials belong into the environment")
    return url


Url = Annotated[str, AfterValidator(_refuse_user)]
"""A local path or a URL. A job is written into its output, and shown: a URL with credentials is refused."""
