"""`joyfleet VERB ...`, also as `python -m jobs VERB ...`. An error is one message and an exit code."""

import sys

from jobs.signals import SIGNALS


def main() -> None:
    """Run the command line; a `PipelineError` ends it with one message and its exit code."""
    SIGNALS.take()
    # Imported after signals are handled: the imports take a while, and a signal must end the process meanwhile too.
    from jobs.commands import run  # noqa: PLC0415

    exit_code = run()
    SIGNALS.end(exit_code)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
