"""How the model samples its text."""

from pydantic import Field

from pipeline.config.base import ConfigPart


class SamplingConfig(ConfigPart):
    """How text is sampled. The defaults are those of JoyCaption's author for every generation."""

    temperature: float = Field(default=0.6, ge=0, le=2)
    """0 is greedy decoding."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Nucleus sampling: total probability of the tokens that are considered."""
    top_k: int = Field(default=0, ge=0)
    """Number of tokens that are considered; 0 considers all."""
    repetition_penalty: float = Field(default=1.0, ge=0.5, le=2)
    """1 is no penalty, as in the code of JoyCaption's author."""
    max_tokens: int | None = Field(default=None, ge=1, le=4096)
    """Tokens per caption. By default those of the generation: 300 (alpha), 512 (beta-one)."""
    stop_loops: bool = True
    """Stop an answer that only repeats itself, and reject it: this saves the tokens up to `max_tokens`."""
    seeded: bool = True
    """Each request has its own seed, so that its text can be reproduced. Without seeds, `seed` is null in the rows
    and vLLM samples a whole batch at once."""
