"""The time by the clock of an object store, from the `Date` header of any answer; no credentials are needed."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from pipeline.storage.location import ALIASES

TIMEOUT_S = 20

GCS = "https://storage.googleapis.com"


def timed_servers(urls: Iterable[str]) -> list[str]:
    """Return the servers, as http URLs, of those URLs that are in S3 or GCS."""
    servers: dict[str, None] = {}
    for url in urls:
        scheme = url.partition("://")[0].lower() if "://" in url else ""
        match ALIASES.get(scheme, scheme):
            case "s3":
                servers[_s3_endpoint()] = None
            case "gs":
                servers[os.environ.get("STORAGE_EMULATOR_HOST") or GCS] = None
            case _:
                continue
    return list(servers)


def _s3_endpoint() -> str:
    """The endpoint that the clients use, also where it comes from a config file of AWS."""
    import botocore.session  # noqa: PLC0415 - an optional extra

    session = botocore.session.get_session()
    region = session.get_config_variable("region") or "us-east-1"
    return str(session.create_client("s3", region_name=region).meta.endpoint_url)


def server_time(server: str) -> float | None:
    """Return the time of a server, seconds since the epoch; None if it does not answer with a time."""
    request = urllib.request.Request(server, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as err:
        with err:  # refused without credentials, with a date all the same
            date = err.headers.get("Date")
    except (OSError, http.client.HTTPException):
        return None
    return parsedate_to_datetime(date).timestamp() if date else None
