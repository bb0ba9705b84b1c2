"""Print pip's settings as `export` lines for uv, which reads neither pip's files nor its variables.

A variable of uv that is set already is kept. Options of pip that are not named below do not concern where packages
come from.
"""

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping

VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
}
"""pip's option to uv's variable, and what separates the values in it."""

PIP_ORDER = ("global", "install", ":env:")
"""Sections of pip's configuration; a later one wins."""


def pip_options(listed: str) -> dict[str, str]:
    """Return the options that `pip config list` prints, as `pip install` sees them."""
    options: dict[str, tuple[int, str]] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.partition(".")
        if section in PIP_ORDER:
            rank = PIP_ORDER.index(section)
            if option not in options or rank >= options[option][0]:
                options[option] = rank, ast.literal_eval(value)
    return {option: value for option, (_, value) in options.items()}


def uv_variables(options: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to export, for the options of pip and the variables that are set already."""
    exported = {
        variable: separator.join(options[option].split())
        for option, (variable, separator) in VARIABLES.items()
        if options.get(option)
    }
    if "extra-index-url" in options:
        # As pip: the pinned version may be on any of the indexes. The hashes of the lock say which file it is.
        exported["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in exported.items() if name not in environment}


if __name__ == "__main__":
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    for name, value in uv_variables(pip_options(listed), os.environ).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
