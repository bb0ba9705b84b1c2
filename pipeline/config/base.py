"""The two properties that every part of a config shares: frozen, and unknown keys are errors."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the config. An unknown key raises; a built part never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
