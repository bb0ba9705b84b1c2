"""An engine without a model: it names the mean colour of what it was shown, for trying and measuring the rest."""

from __future__ import annotations

import asyncio

from pipeline.engines.protocol import Answer, Question


class EchoEngine:
    """Answers at once, or after a fixed time."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s

    async def answer(self, question: Question) -> Answer:
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        red, green, blue = question.pixels[::16, ::16].reshape(-1, 3).mean(axis=0)
        text = f"An image of mean colour {red:.0f} {green:.0f} {blue:.0f}, asked with seed {question.seed}."
        return Answer(
            id=question.id, text=text, finish_reason="stop", prompt_tokens=0, caption_tokens=len(text.split())
        )

    async def restart(self) -> None:
        pass

    def close(self) -> None:
        pass
