"""One vLLM engine for all end-to-end tests of a session: starting one takes half a minute."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from pipeline.config import EngineConfig, ModelConfig, SamplingConfig
from pipeline.engines import Engine, EngineSpec, start_engine
from pipeline.models import FAMILIES
from pipeline.recipe import find_weights

WEIGHTS = find_weights(ModelConfig(id="standin"))
GEOMETRY = FAMILIES["joycaption"].geometry_of(WEIGHTS.stated)


class Running:
    """An engine on an event loop of its own, for tests that are not async."""

    def __init__(self, spec: EngineSpec) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.engine: Engine = start_engine(spec)

    def close(self) -> None:
        self.engine.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=300)


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    running = Running(
        EngineSpec(
            config=EngineConfig(max_model_len=768),
            sampling=SamplingConfig(temperature=0),
            max_tokens=300,
            model_path=WEIGHTS.path,
            revision=None,
            family="joycaption",
            geometry=GEOMETRY,
        )
    )
    yield running
    running.close()
