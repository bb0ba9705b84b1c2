"""An engine without a model: it names the mean colour of what it was shown, for trying and measuring the rest."""

from __future__ import annotations

import asyncio

from pipeline.engines.protocol import EngineRequest, EngineResponse, EngineStats


class EchoEngine:
    """Answers at once, or after a fixed time."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._running = 0

    async def answer(self, question: EngineRequest) -> EngineResponse:
        if self._latency_s:
            self._running += 1
            await asyncio.sleep(self._latency_s)
            self._running -= 1
        red, green, blue = question.pixels[::16, ::16].reshape(-1, 3).mean(axis=0)
        # Neither prose nor a tag list, so that no rule minds it in any mode.
        text = f"mean colour {red:.0f} {green:.0f} {blue:.0f}, seed {question.seed}"
        return EngineResponse(
            id=question.id, text=text, finish_reason="stop", prompt_tokens=0, caption_tokens=len(text.split())
        )

    async def restart(self) -> None:
        pass

    def stats(self) -> EngineStats:
        return EngineStats(requests_running=self._running)

    def close(self) -> None:
        pass
