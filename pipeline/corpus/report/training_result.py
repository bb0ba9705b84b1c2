"""The result of a training on a corpus: a small JSON file that the trainer writes, for the card of that corpus."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from pipeline.config.base import ConfigPart
from pipeline.config.config_errors import mistakes_of
from pipeline.errors import ConfigError, OutputMismatch

MAX_BYTES = 16 << 20
"""Of the file: a million losses."""

Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Line = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]


class CorpusName(ConfigPart):
    """Which corpus the training read: `run.json` and `plan.parquet` of the corpus say it."""

    recipe: str
    """`recipe.fingerprint` in `run.json`."""
    plan: str
    """The first 16 hex digits of the SHA-256 of `plan.parquet`."""


class Continuation(ConfigPart):
    """What the trained model wrote."""

    prompt: Text
    output: Text
    """Without the prompt."""


class TrainingResult(ConfigPart):
    """One training."""

    corpus: CorpusName
    trainer: Line
    """The program or the notebook."""
    model: Line
    """Architecture and size, such as `LLaMA, 3 layers of width 128`."""
    num_parameters: int = Field(ge=1)
    batch_texts: int = Field(ge=1)
    """Texts of a step."""
    losses: tuple[Loss, ...] = Field(min_length=1)
    """Mean loss of a token: of each step, or of every `steps_per_loss`th one."""
    steps_per_loss: int = Field(default=1, ge=1)
    """Steps from one loss to the next."""
    validation_losses: tuple[tuple[int, Loss], ...] = ()
    """Number of steps, and then the loss on texts of the validation split."""
    num_tokens: int | None = Field(default=None, ge=0)
    """Tokens on which loss was computed, of all steps."""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    continuations: tuple[Continuation, ...] = Field(default=(), max_length=8)

    @model_validator(mode="after")
    def _steps(self) -> "TrainingResult":
        outside = [step for step, _ in self.validation_losses if not 0 <= step <= self.num_steps]
        if outside:
            raise ValueError(f"validation_losses names step {outside[0]}; allowed: 0 to {self.num_steps}")
        return self

    @property
    def num_steps(self) -> int:
        return len(self.losses) * self.steps_per_loss


def read_result(file: Path) -> bytes:
    """Return a file that is given for a card.

    Raises:
        ConfigError: it cannot be read, or is too large.
    """
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{file}: has {size:,} bytes; allowed: {MAX_BYTES:,}. Keep fewer losses, and give "
                "their distance as steps_per_loss"
            )
        return file.read_bytes()
    except OSError as err:
        raise ConfigError(f"{file}: cannot be read ({err.strerror}); give the file that the trainer wrote") from err


def training_of(data: bytes, origin: str, identity: dict[str, str]) -> TrainingResult:
    """Return a result.

    Args:
        data: of the file.
        origin: its name, for messages.
        identity: of the corpus whose card shows it.

    Raises:
        ConfigError: it is not the result of a training.
        OutputMismatch: it is that of a training on another corpus.
    """
    try:
        result = TrainingResult.model_validate(json.loads(data))
    except ValidationError as err:
        listed = "; ".join(mistake.message for mistake in mistakes_of(err, TrainingResult))
        raise ConfigError(f"{origin}: not the result of a training ({listed}); docs/corpus.md has its keys") from err
    except ValueError as err:
        raise ConfigError(f"{origin}: not JSON ({err}); give the file that the trainer wrote") from err
    differing = [
        f"{name} {found}, and the corpus has {identity[name]}"
        for name, found in result.corpus.model_dump().items()
        if found != identity[name]
    ]
    if differing:
        raise OutputMismatch(
            f"{origin}: the result of a training on another corpus ({'; '.join(differing)}); give the result of a "
            "training on this one"
        )
    return result
