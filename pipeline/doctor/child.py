"""The process that runs checks: `python -m pipeline.doctor.child DESCRIPTOR NAME...`, started by `examine`."""

import sys
import traceback
from multiprocessing.connection import Connection

from pipeline.doctor.check import Context, Finding, failed
from pipeline.doctor.checks import CHECKS
from pipeline.errors import PipelineError


def main() -> None:
    """Read the context from the connection, and write a finding for each name."""
    connection = Connection(int(sys.argv[1]))
    context = connection.recv()
    for name in sys.argv[2:]:
        connection.send(_finding(name, context))


def _finding(name: str, context: Context) -> Finding:
    try:
        return CHECKS[name].run(context)
    except PipelineError as err:
        return failed(str(err))
    except Exception as err:  # noqa: BLE001 - the boundary of a check: its error is its finding, the others go on
        traceback.print_exc()
        return failed(f"the check crashed: {type(err).__name__}: {err}", "report it, with `joyfleet doctor --json`")


if __name__ == "__main__":
    main()
