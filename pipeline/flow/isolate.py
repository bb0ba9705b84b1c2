"""What Ray must find in the environment before it is imported, so this module does not import it."""

from __future__ import annotations

import os

ADDRESS_VARIABLE = "RAY_ADDRESS"
API_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Where jobs are submitted to, in Ray's own name for it."""


def isolate_ray(address: str | None) -> None:
    """Prepare this process for Ray; without an address, for a Ray of its own that nobody else can reach."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # A thread of Ray Data that outlives a stopped run would otherwise start another Ray by asking for something.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if address or os.environ.get(ADDRESS_VARIABLE):
        return
    # A local Ray listens on all interfaces by default; without multi-node support it binds to loopback alone.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Left to itself Ray switches tokens on when it finds ~/.ray/auth_token, and then refuses its own driver.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
