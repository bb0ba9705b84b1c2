"""Settings of an output that need the caller's consent: its `run.json` is data that someone else may have written.

A retry takes the recipe of an output (model, prompts, sampling) from `run.json`. The caller must repeat the settings
that run code of a model, send images and keys to servers, send pickles to a Ray cluster, read local files, or fetch
from servers.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.base import without_user
from pipeline.config.load import ENV_PREFIX
from pipeline.errors import ConfigError

OWN_STORES = ("file", "local", "memory", "s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "adl")
"""Schemes that an output may name: local files, and stores that authenticate the caller."""

OWN_ADDRESSES = (None, "local", "auto")

_REASONS = {
    "engine.trust_remote_code": "runs code of the model",
    "engine.endpoint.urls": "sends the images there",
    "engine.endpoint.api_key_env": "sends this variable there",
    "cluster.address": "runs the job there",
    "quality.tags.vocabulary": "reads this file",
    "model.id": "loads a model from this folder",
    "source.urls": "reads from there",
    "source.captions": "reads from there",
}


def is_own_store(url: str) -> bool:
    """Whether a source may be read without the caller's consent: a local path, or a store of `OWN_STORES`."""
    scheme, separator, _ = url.partition("://")
    return "::" not in url and (not separator or scheme.lower() in OWN_STORES)


def refuse_foreign_sources(urls: Sequence[str], origin: str, remedy: str) -> None:
    """Refuse foreign URLs that come from an output and not from the caller.

    Raises:
        ConfigError: names the first of them; `remedy` says what to pass.
    """
    foreign = [url for url in urls if not is_own_store(url)]
    if foreign:
        raise ConfigError(
            f"{origin}: would fetch {without_user(foreign[0])}; allowed for URLs of an output: local files, S3, GCS, "
            f"Azure and the Hugging Face hub. {remedy}"
        )


def without_powers(described: Mapping[str, Any], overrides: Sequence[str], origin: str) -> dict[str, Any]:
    """Return the config of an output without the settings that need the caller's consent.

    Args:
        described: the config that `run.json` holds.
        overrides: `key=value`, from the caller.
        origin: of the config, for the message.

    Raises:
        ConfigError: it has such a setting, and neither overrides nor environment repeat it.
    """
    job: dict[str, Any] = dict(described)
    missing: list[str] = []
    for key, reason in _REASONS.items():
        value = _at(job, key)
        if value is None or _is_harmless(key, value):
            continue
        if _is_repeated(key, overrides):
            job = _dropped(job, key.split("."))
        else:
            missing.append(f"{key}: {without_user(str(value))} ({reason})")
    if missing:
        listed = "\n  ".join(missing)
        raise ConfigError(
            f"{origin}: these settings come from the output and need your consent:\n  {listed}\n"
            "Give the job file that made the output (--job job.yaml), or repeat each: --set KEY=VALUE"
        )
    return job


def _is_harmless(key: str, value: Any) -> bool:  # noqa: ANN401 - JSON
    if key == "engine.trust_remote_code":
        return value is False
    if key == "cluster.address":
        return value in OWN_ADDRESSES
    if key == "model.id":
        # A hub id, or the model in this package.
        return value == "standin" or not (str(value).startswith(("/", ".", "~")) or Path(str(value)).exists())
    if key == "source.urls":
        return isinstance(value, list) and all(is_own_store(str(url)) for url in value)
    if key == "source.captions":
        return is_own_store(str(value))
    return False


def _at(job: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - JSON
    node: Any = job
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _dropped(job: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A copy without one key, so that the caller's value replaces it instead of being merged into it."""
    name, *rest = names
    if rest:
        return {**job, name: _dropped(job[name], rest)}
    return {key: value for key, value in job.items() if key != name}


def _is_repeated(key: str, overrides: Sequence[str]) -> bool:
    """Whether the caller sets the key, or a section that holds it."""
    repeated = {override.partition("=")[0] for override in overrides}
    repeated |= {
        name.removeprefix(ENV_PREFIX).lower().replace("__", ".") for name in os.environ if name.startswith(ENV_PREFIX)
    }
    return any(key == name or key.startswith(f"{name}.") for name in repeated)
