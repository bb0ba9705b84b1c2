"""Every error that JoyFleet raises on purpose; `jobs/` turns them into one line and an exit code.

    PipelineError            exit 1
    |- ConfigError           exit 2   the config or the command line is wrong
    |- OutputMismatch        exit 2   the output belongs to another recipe or another plan
    |- PlanExtended          exit 1   another run has added to the plan in the meantime
    |- StoreError            exit 1   a store does not answer, or the output's has no atomic create
    |- ModelMismatch         exit 1   the model is not JoyCaption-shaped
    |- EngineDead            exit 1   the engine crashed and could not be restarted
    |- Stalled               exit 1   a stage made no progress for too long
    |- NothingDone           exit 1   a run that produced no row from a non-empty source
    |- Interrupted           exit 4   SIGTERM or SIGINT; the next run resumes
    |- ShardUnreadable       a shard for quarantine; ends no run
    |- BadImage              a `failed` row; ends no run
    `- BadText               a training text that breaks the grammar; ends no run

All of them pickle, since most cross a process boundary: each takes its arguments positionally and passes all of them to
`Exception.__init__`.
"""

from schemas.status import Reason


class PipelineError(Exception):
    """The root: caught in `jobs/` alone."""

    exit_code = 1


class ConfigError(PipelineError):
    """The config or the command line is wrong; nothing was started."""

    exit_code = 2


class OutputMismatch(PipelineError):
    """The output holds captions of another recipe or another source."""

    exit_code = 2


class PlanExtended(PipelineError):
    """Another run has added the next generation to the plan; this one has added nothing."""


class StoreError(PipelineError):
    """The output's store refused, has no atomic create or has damaged files; or the source's store failed."""


class ModelMismatch(PipelineError):
    """The model's tokens or image layout are not JoyCaption's."""


class EngineDead(PipelineError):
    """The engine crashed more often than allowed, or does not start."""


class Stalled(PipelineError):
    """No stage made progress for `cluster.stall_timeout_s`."""


class NothingDone(PipelineError):
    """The source has images and the run produced no row."""


class Interrupted(PipelineError):
    """A signal stopped the run; committed and staged rows stay."""

    exit_code = 4


class ShardUnreadable(PipelineError):
    """A shard that cannot be read at all: it goes to quarantine with this message."""


class BadImage(PipelineError):
    """An image that becomes a `failed` row."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class BadText(PipelineError):
    """A training text that breaks a rule of its grammar, and where."""

    def __init__(self, rule: str, message: str, offset: int, text: str) -> None:
        """Take the broken rule, what was found and allowed, and the number of characters before the fault."""
        super().__init__(rule, message, offset, text)
        self.rule = rule
        self.offset = offset
        self.line = text.count("\n", 0, offset) + 1
        """From 1."""
        self.column = offset - text.rfind("\n", 0, offset)
        """From 1, in characters."""
        self.message = message

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.rule}: {self.message}"
