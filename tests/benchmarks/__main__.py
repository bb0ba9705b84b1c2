"""Runs the benchmarks one after the other: `python -m tests.benchmarks [NAME ...]`.

All of them take over three hours, two of which are `soak`.
"""

import subprocess
import sys
from pathlib import Path

_ENTRY = 'if __name__ == "__main__":'
NAMES = sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py") if _ENTRY in file.read_text())
"""The modules beside this one that are run by themselves."""

NO_DEVICE = 2
"""Exit code of one that lacks what it measures; it has said so."""


def main() -> int:
    """Return 1 if one of them failed."""
    failed: list[str] = []
    for name in sys.argv[1:] or NAMES:
        print(f"\n== {name}", flush=True)
        code = subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode
        if code not in (0, NO_DEVICE):
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
