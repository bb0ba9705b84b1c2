"""`joyfleet VERB ...`, also as `python -m jobs VERB ...`. An error is one message and an exit code."""

import sys

from jobs.signals import SIGNALS


def main() -> None:
    """Run the command line; errors of ours end it with one message and their exit code."""
    SIGNALS.take()
    # Only now: what is imported takes a while, in which a signal must end the process as at any other time.
    from jobs.commands import run  # noqa: PLC0415

    exit_code = run()
    SIGNALS.end(exit_code)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
