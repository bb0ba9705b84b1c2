"""An engine that dies takes no image with it but the one that killed it."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.engines import EngineRequest, EngineResponse
from pipeline.errors import EngineDead
from pipeline.stages.dispatch import CrashLimits, Dispatcher, ImageRequests
from schemas.status import Reason

LIMITS = CrashLimits(per_image=1, restarts=200)


@dataclass
class FragileEngine:
    """Dies of the poisonous images; counts its lives."""

    poison: frozenset[str] = frozenset()
    deaths_left: int | None = None
    """None: poison works for ever."""
    lives: int = 1
    dead: bool = False
    answered: list[str] = field(default_factory=list)

    async def answer(self, question: EngineRequest) -> EngineResponse:
        life = self.lives
        if self.dead:
            raise EngineDead("asked a dead engine")
        if question.image_id in self.poison and self.deaths_left != 0:
            await asyncio.sleep(0.001)
            if self.lives == life and not self.dead:
                self.dead = True
                self.deaths_left = None if self.deaths_left is None else self.deaths_left - 1
            raise EngineDead("poisoned")
        await asyncio.sleep(0.002)
        if self.dead or self.lives != life:
            raise EngineDead("died meanwhile")
        self.answered.append(question.id)
        return EngineResponse(id=question.id, text=f"about {question.image_id}")

    async def restart(self) -> None:
        await asyncio.sleep(0.003)
        self.lives += 1
        self.dead = False

    def close(self) -> None:
        pass


def image_of(name, slots=2):
    pixels = np.zeros((1, 1, 3), np.uint8)
    return ImageRequests(
        name,
        tuple(
            EngineRequest(id=f"{name}#{slot}", pixels=pixels, image_id=name, system="", prompt="", seed=0)
            for slot in range(slots)
        ),
    )


def ask_all(engine, batches, limits=LIMITS):
    async def run():
        asking = Dispatcher(engine, limits)
        return await asyncio.gather(*(answers(asking, batch) for batch in batches))

    async def answers(asking, batch):
        work = [asking.answer(image.name, request) for image in batch for request in image.requests]
        return {answer.id: answer for answer in await asyncio.gather(*work)}

    return asyncio.run(run())


def batches_of(num_batches, num_images):
    return [[image_of(f"{batch}/{image}") for image in range(num_images)] for batch in range(num_batches)]


def test_every_question_of_every_batch_gets_its_own_answer():
    batches = batches_of(4, 8)
    for batch, answers in zip(batches, ask_all(FragileEngine(), batches), strict=True):
        expected = {question.id: f"about {image.name}" for image in batch for question in image.requests}
        assert {name: answer.text for name, answer in answers.items()} == expected


@pytest.mark.parametrize("poison", [{"0/7"}, {"0/0", "2/3", "2/4"}, {"1/15"}])
def test_poisonous_images_fail_and_all_others_are_answered(poison):
    batches = batches_of(4, 16)
    results = ask_all(FragileEngine(frozenset(poison)), batches)
    failed = {name.split("#")[0] for answers in results for name, answer in answers.items() if answer.text is None}
    assert failed == poison
    assert sum(len(answers) for answers in results) == 4 * 16 * 2
    reasons = {answer.reason for answers in results for answer in answers.values() if answer.text is None}
    assert reasons == {Reason.ENGINE_KILLED}


def test_an_engine_that_dies_once_costs_no_image():
    engine = FragileEngine(frozenset({"0/3"}), deaths_left=1)
    results = ask_all(engine, batches_of(3, 8))
    assert all(answer.text for answers in results for answer in answers.values())
    assert engine.lives == 2


def test_an_image_may_kill_as_often_as_the_limit_says():
    engine = FragileEngine(frozenset({"0/0"}), deaths_left=3)
    [answers] = ask_all(engine, [[image_of("0/0")]], CrashLimits(per_image=2, restarts=200))
    assert all(answer.text for answer in answers.values())
    engine = FragileEngine(frozenset({"0/0"}), deaths_left=3)
    [answers] = ask_all(engine, [[image_of("0/0")]], CrashLimits(per_image=1, restarts=200))
    assert not any(answer.text for answer in answers.values())


def test_an_engine_that_never_lives_is_given_up():
    with pytest.raises(EngineDead, match=r"crashed 4 times; engine\.max_restarts=3"):
        ask_all(
            FragileEngine(frozenset({f"0/{n}" for n in range(8)})),
            batches_of(1, 8),
            CrashLimits(per_image=9, restarts=3),
        )


def test_an_error_of_our_own_is_not_taken_for_a_death():
    class Broken(FragileEngine):
        async def answer(self, question):
            raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        ask_all(Broken(), batches_of(1, 2))


def test_images_that_crashed_together_are_asked_again_together_and_others_wait():
    """Without the pool of suspects each of them would be alone in the engine, one after the other."""
    together, most = 0, 0

    class Counting(FragileEngine):
        async def answer(self, question):
            nonlocal together, most
            together += 1
            most = max(most, together) if self.lives == 2 else most
            try:
                return await super().answer(question)
            finally:
                together -= 1

    engine = Counting(frozenset({"0/3"}), deaths_left=1)
    ask_all(engine, batches_of(3, 8))
    assert (engine.lives, most) == (2, 3 * 8 * 2)
