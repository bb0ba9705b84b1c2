"""What answers requests: one protocol, several engines, chosen by the config."""

from pipeline.engines.factory import EngineSpec, start_engine
from pipeline.engines.protocol import Engine, EngineRequest, EngineResponse, EngineStats

__all__ = ["Engine", "EngineRequest", "EngineResponse", "EngineSpec", "EngineStats", "start_engine"]
