"""What an output may not decide for whoever works on it: its `run.json` is data, perhaps a stranger's.

The recipe of an output (model, prompts, sampling) is what a retry is about, and is taken from it. But whether code
of a model runs here, which servers get images and keys, which Ray gets pickles, which local files are read and
which servers are fetched from is the caller's to say, again and in words of their own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.base import without_user
from pipeline.config.load import ENV_PREFIX
from pipeline.errors import ConfigError

OWN_STORES = ("file", "local", "memory", "s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "adl")
"""Schemes that an output may name: local files, and stores that know the caller by their own credentials."""

ADDRESSES_OF_ONESELF = (None, "local", "auto")

_REASONS = {
    "engine.trust_remote_code": "runs code of the model",
    "engine.endpoint.urls": "sends the images there",
    "engine.endpoint.api_key_env": "sends this variable there",
    "cluster.address": "runs the job there",
    "quality.tags.vocabulary": "reads this file",
    "model.id": "loads a model from this folder",
    "source.urls": "reads from there",
}


def is_own_store(url: str) -> bool:
    """Whether a source may be read without a word of the caller: a local path, or a store of `OWN_STORES`."""
    scheme, separator, _ = url.partition("://")
    return "::" not in url and (not separator or scheme.lower() in OWN_STORES)


def refuse_foreign_sources(urls: Sequence[str], origin: str, remedy: str) -> None:
    """Refuse URLs that an output names and that the caller did not.

    Raises:
        ConfigError: names the first of them; `remedy` says what to pass.
    """
    foreign = [url for url in urls if not is_own_store(url)]
    if foreign:
        raise ConfigError(
            f"{origin}: would fetch {without_user(foreign[0])}; what an output names is read from local files, S3, "
            f"GCS, Azure and the Hugging Face hub alone. {remedy}"
        )


def without_powers(described: Mapping[str, Any], overrides: Sequence[str], origin: str) -> dict[str, Any]:
    """Return a job as an output describes it, without what is the caller's to say.

    Args:
        described: the config that `run.json` holds.
        overrides: `key=value`, said by the caller.
        origin: of the description, for the message.

    Raises:
        ConfigError: it decides such a thing, and neither overrides nor environment say it again.
    """
    job: dict[str, Any] = dict(described)
    unsaid: list[str] = []
    for key, reason in _REASONS.items():
        value = _at(job, key)
        if value is None or _is_harmless(key, value):
            continue
        if _said(key, overrides):
            job = _dropped(job, key.split("."))
        else:
            unsaid.append(f"{key}: {without_user(str(value))} ({reason})")
    if unsaid:
        listed = "\n  ".join(unsaid)
        raise ConfigError(
            f"{origin}: decides what is yours to say:\n  {listed}\n"
            "Give the job file that made the output (--job job.yaml), or say each again: --set KEY=VALUE"
        )
    return job


def _is_harmless(key: str, value: Any) -> bool:  # noqa: ANN401 - JSON
    if key == "engine.trust_remote_code":
        return value is False
    if key == "cluster.address":
        return value in ADDRESSES_OF_ONESELF
    if key == "model.id":
        return not _is_local_folder(str(value))
    if key == "source.urls":
        return isinstance(value, list) and all(is_own_store(str(url)) for url in value)
    return False


def _is_local_folder(name: str) -> bool:
    """Whether a model's name may be a path; `standin` is the one in this package."""
    return name != "standin" and (name.startswith(("/", ".", "~")) or Path(name).exists())


def _at(job: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - JSON
    node: Any = job
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _dropped(job: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A copy without one key: the caller's word then stands alone, whatever it is merged with."""
    name, *rest = names
    if rest:
        return {**job, name: _dropped(job[name], rest)}
    return {key: value for key, value in job.items() if key != name}


def _said(key: str, overrides: Sequence[str]) -> bool:
    """Whether the caller set the key, or a part of the config that holds it."""
    said = {override.partition("=")[0] for override in overrides}
    said |= {
        name.removeprefix(ENV_PREFIX).lower().replace("__", ".") for name in os.environ if name.startswith(ENV_PREFIX)
    }
    return any(key == one or key.startswith(f"{one}.") for one in said)
