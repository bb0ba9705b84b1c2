"""How a corpus is written for a trainer: each field is an option of `joyfleet export-corpus`."""

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from pipeline.config.base import ConfigPart


class TokeniseBy(StrEnum):
    """How the two halves of a text become tokens."""

    WHOLE = "whole"
    """The text at once, as TIPO v1's trainer: a token may reach over the border of the halves."""
    HALVES = "halves"
    """Each half of a text without loss on its given half, as TIPO v2's trainer: loss begins at a border of tokens."""


class CorpusExportConfig(ConfigPart):
    """Everything that decides the content of a corpus export."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    to: str
    """Form of the export."""
    tokenizer: str | None = None
    """A tokenizer.json of Hugging Face, or a folder with one."""
    bos: str | None = None
    """Token at the start of a text; by default it is found by its usual names."""
    eos: str | None = None
    """Token at the end of a text; by default it is found by its usual names."""
    tokenise: TokeniseBy = TokeniseBy.WHOLE
    """Tokenise the whole text as TIPO v1, or its halves as TIPO v2; by default whole."""
    context: int = Field(default=1024, ge=16)
    """Tokens of a text at most, 1024 by default; longer texts are cut, as the trainers do, and counted."""
    pack: int | None = Field(default=None, ge=16)
    """Put whole texts into sequences of at most this many tokens; by default each text is a row."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pack is not None and self.pack < self.context:
            raise ValueError(
                f"--pack {self.pack} is less than --context {self.context}, so a text may not fit; raise --pack, or "
                "lower --context"
            )
        return self


def flag_of(name: str) -> str:
    """Return a field's option on the command line."""
    return f"--{name}"
