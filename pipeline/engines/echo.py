"""An engine without a model, to test and measure the rest.

It answers with the mean colour of the image; without an image, with the length of the prompt.
"""

import asyncio
import contextlib

from pipeline.engines.protocol import EngineRequest, EngineResponse, EngineStats


class EchoEngine:
    """Answers immediately, or after a fixed time, and works on at most `max_num_seqs` requests together."""

    def __init__(self, latency_s: float, max_num_seqs: int | None = None) -> None:
        self._latency_s = latency_s
        self._max_num_seqs = max_num_seqs
        self._free = asyncio.Semaphore(max_num_seqs) if max_num_seqs else contextlib.nullcontext()
        self._running = 0

    async def answer(self, request: EngineRequest) -> EngineResponse:
        if self._latency_s:
            async with self._free:
                self._running += 1
                await asyncio.sleep(self._latency_s)
                self._running -= 1
        # Neither prose nor a tag list, so that no quality rule rejects it in any mode.
        if request.pixels.size:
            red, green, blue = request.pixels[::16, ::16].reshape(-1, 3).mean(axis=0)
            text = f"mean colour {red:.0f} {green:.0f} {blue:.0f}, seed {request.seed}"
        else:
            text = f"prompt of {len(request.prompt.split())} words, seed {request.seed}"
        return EngineResponse(
            id=request.id, text=text, finish_reason="stop", prompt_tokens=0, caption_tokens=len(text.split())
        )

    async def restart(self) -> None:
        pass

    def stats(self) -> EngineStats:
        return EngineStats(max_num_seqs=self._max_num_seqs, requests_running=self._running)

    def close(self) -> None:
        pass
