"""The step loop bounds who waits, forgets who left, and tells everybody when a step fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
import torch

from millrace.core.replica import Limits
from millrace.engine.answer import Answer
from millrace.engine.attention import AttentionStep, Span
from millrace.engine.detokenizer import ByteDetokenizer
from millrace.engine.errors import ApiError
from millrace.engine.executor import TorchExecutor
from millrace.engine.generation import generation
from millrace.engine.loop import EngineLoop
from millrace.engine.metrics import Metrics
from millrace.engine.model import Model
from millrace.engine.weights import load_model
from millrace.policies.batching.split_fuse import Policy
from millrace.replica.replica import Replica
from tests.unit.engine.checkpoints import prompt, save_checkpoint


class Failing:
    """Attention on a broken device."""

    def plan(self, spans: Sequence[Span]) -> AttentionStep:
        raise RuntimeError("the device is gone")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny model."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(folder)
    return load_model(folder, dtype=torch.float32)


def engine(model: Model, *, waiting: int = 4, attention: Failing | None = None) -> EngineLoop:
    replica = Replica(Limits(kv_blocks=64, block_tokens=4, sequences=2), Policy())
    executor = TorchExecutor(model, kv_blocks=64, block_tokens=4, attention=attention)
    return EngineLoop(
        replica, executor, Metrics(replica, "m"), waiting=waiting, observe=lambda step, result: None
    )


def answer(name: str, choices: int = 1, max_tokens: int = 3) -> Answer:
    silent = ByteDetokenizer(lambda token: b".")
    return Answer(
        [
            generation(f"{name}-{i}", prompt(5), max_tokens, detokenizer=silent, block_tokens=4)
            for i in range(choices)
        ]
    )


async def texts(answer: Answer) -> dict[int, str]:
    read: dict[int, str] = {}
    async for parts in answer.parts():
        for part in parts:
            read[part.index] = read.get(part.index, "") + part.delta.text
    return read


def during(loop: EngineLoop, scene: Callable[[], Awaitable[None]]) -> BaseException | None:
    """Play a scene while the loop runs, and return what ended the loop if it was not the end of the scene."""

    async def play() -> BaseException | None:
        steps = asyncio.create_task(loop.run())
        await scene()
        await asyncio.sleep(0)
        steps.cancel()
        (failure,) = await asyncio.gather(steps, return_exceptions=True)
        return None if isinstance(failure, asyncio.CancelledError) else failure

    return asyncio.run(play())


def test_more_sequences_than_run_at_once_are_all_answered(model: Model) -> None:
    loop = engine(model, waiting=8)

    async def scene() -> None:
        many = answer("many", choices=5)
        loop.submit(many)
        assert await texts(many) == dict.fromkeys(range(5), "...")

    assert during(loop, scene) is None


def test_more_sequences_than_may_wait_are_refused_and_nothing_of_them_stays(model: Model) -> None:
    loop = engine(model, waiting=4)

    async def scene() -> None:
        with pytest.raises(ApiError, match="as many requests waiting as it may") as refused:
            loop.submit(answer("five", choices=5))
        assert refused.value.status == 503
        assert not loop.replica.waiting
        four = answer("four", choices=4)
        loop.submit(four)
        assert len(await texts(four)) == 4

    assert during(loop, scene) is None


def test_an_answer_that_nobody_wants_any_more_is_not_computed_further(model: Model) -> None:
    loop = engine(model)

    async def scene() -> None:
        left, kept = answer("left", max_tokens=50), answer("kept")
        loop.submit(left)
        loop.submit(kept)
        async for _ in left.parts():
            loop.abort(left)
        assert await texts(kept) == {0: "..."}
        assert left.generations[0].generated < 50
        assert not loop.replica.running

    assert during(loop, scene) is None


def test_a_step_that_fails_ends_every_answer_and_all_later_ones(model: Model) -> None:
    loop = engine(model, attention=Failing())

    async def scene() -> None:
        running = answer("running")
        loop.submit(running)
        with pytest.raises(ApiError, match="has failed"):
            await texts(running)
        assert not loop.healthy
        with pytest.raises(ApiError, match="has failed"):
            loop.submit(answer("later"))

    assert isinstance(during(loop, scene), RuntimeError)
