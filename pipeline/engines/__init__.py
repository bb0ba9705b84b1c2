"""What answers requests: one protocol, several engines, chosen by the config."""

from pipeline.engines.protocol import Answer, Engine, EngineStats, Question
from pipeline.engines.start import EngineSpec, start_engine

__all__ = ["Answer", "Engine", "EngineSpec", "EngineStats", "Question", "start_engine"]
