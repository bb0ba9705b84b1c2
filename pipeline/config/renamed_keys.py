"""Config keys that have another name than in the first edition: the one table of old and new names.

A config of today that uses an old name is refused with the new one. An output stores the names of its edition: its
`run.json` is read with the new names, and recipes keep the first edition's names, so that fingerprints do not change.
"""

from collections.abc import Mapping
from typing import Any

RENAMED_KEYS: Mapping[str, str] = {
    "source.carry": "source.metadata_fields",
    "engine.max_deaths_per_image": "engine.max_crashes_per_image",
    "engine.endpoint.patience_s": "engine.endpoint.reconnect_timeout_s",
    "quality.repair": "quality.retry",
    "cluster.readers": "cluster.max_concurrent_reads",
    "cluster.grace_s": "cluster.drain_timeout_s",
    "render.drop_all": "render.drop_all_probability",
    "render.drop_some": "render.drop_some_probability",
    "render.keep_line": "render.keep_line_probability",
    "render.loss_all": "render.loss_on_all_probability",
}
"""Old dotted path to new dotted path. A rename changes the last part of the path only."""

_STORED_NAMES = {new: old for old, new in RENAMED_KEYS.items()}


def with_new_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that an output stores, with the names of today."""
    return _renamed(stored, RENAMED_KEYS)


def with_stored_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config of today with the names of the first edition."""
    return _renamed(config, _STORED_NAMES)


def _renamed(config: Mapping[str, Any], names: Mapping[str, str], at: str = "") -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{at}{key}"
        new_key = names[path].rpartition(".")[2] if path in names else key
        renamed[new_key] = _renamed(value, names, f"{path}.") if isinstance(value, Mapping) else value
    return renamed
