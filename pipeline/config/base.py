"""What every part of a config shares: frozen, unknown keys are errors, and no secret stands in a URL."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the config. An unknown key raises; a built part never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# A secret key of AWS may hold a slash, which then ends what looks like the bucket; no bucket's name holds a colon.
_USER = re.compile(r"(?<=://)[^/@\s]+@|(?:(?<=s3://)|(?<=gs://))[^/:\s]*:\S*@")


def without_user(text: str) -> str:
    """Return a text with the user part of its URLs, where a secret may stand, blotted out."""
    return _USER.sub("***@", text)


def _refuse_user(url: str) -> str:
    if _USER.search(url):
        raise ValueError("allowed: no '@' before the path; credentials belong into the environment")
    return url


Url = Annotated[str, AfterValidator(_refuse_user)]
"""A local path or a URL. A job is written into its output, and shown: a URL with credentials is refused."""
