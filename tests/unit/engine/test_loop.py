"""The step loop bounds who waits, forgets who left, and ends what a failing step was for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
import torch

from millrace.core.replica import Limits
from millrace.engine.answer import Answer
from millrace.engine.attention import AttentionStep, SdpaAttention, Span
from millrace.engine.detokenizer import ByteDetokenizer
from millrace.engine.errors import ApiError
from millrace.engine.executor import TorchExecutor
from millrace.engine.generation import generation
from millrace.engine.kv import KvShape
from millrace.engine.loop import MOST_FAILURES, EngineLoop
from millrace.engine.metrics import Metrics
from millrace.engine.model import Model
from millrace.engine.weights import load_model
from millrace.policies.batching.split_fuse import Policy
from millrace.replica.replica import Replica
from tests.unit.engine.checkpoints import prompt, save_checkpoint


class Failing(SdpaAttention):
    """Attention that raises for spans of some lengths."""

    def __init__(self, model: Model, fails: Callable[[int], bool], error: Exception | None = None) -> None:
        super().__init__(kv_shape(model), dtype=torch.float32, device="cpu")
        self._fails, self._error = fails, error or RuntimeError("it broke")

    def plan(self, spans: Sequence[Span]) -> AttentionStep:
        if any(self._fails(span.tokens) for span in spans):
            raise self._error
        return super().plan(spans)


def kv_shape(model: Model) -> KvShape:
    config = model.config
    return KvShape(
        layers=config.num_hidden_layers,
        blocks=64,
        block_tokens=4,
        heads=config.kv_heads,
        head_size=config.head_size,
    )


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


def answer(name: str, choices: int = 1, max_tokens: int = 3, ids: Sequence[int] = prompt(5)) -> Answer:
    silent = ByteDetokenizer(lambda token: b".")
    return Answer(
        [
            generation(f"{name}-{i}", ids, max_tokens, detokenizer=silent, block_tokens=4)
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


def test_a_step_that_fails_ends_only_the_answers_it_was_for(model: Model) -> None:
    bad = prompt(9, seed=1)
    loop = engine(model, attention=Failing(model, lambda tokens: tokens == len(bad)))

    async def scene() -> None:
        for i in range(2 * MOST_FAILURES):
            failing, good = answer(f"bad-{i}", choices=3, ids=bad), answer(f"good-{i}")
            loop.submit(failing)
            with pytest.raises(ApiError, match="could not compute this answer") as refused:
                await texts(failing)
            assert refused.value.status == 500
            loop.submit(good)
            assert await texts(good) == {0: "..."}
        assert loop.healthy
        assert loop.replica.kv_free_tokens == 64 * 4

    assert during(loop, scene) is None


def test_steps_that_keep_failing_end_every_answer_and_all_later_ones(model: Model) -> None:
    loop = engine(model, waiting=64, attention=Failing(model, lambda tokens: True))

    async def scene() -> None:
        for i in range(MOST_FAILURES - 1):
            early = answer(f"early-{i}")
            loop.submit(early)
            with pytest.raises(ApiError, match="could not compute"):
                await texts(early)
        running, waiting = answer("running", choices=2), answer("waiting")
        loop.submit(running)
        loop.submit(waiting)
        for ended in (running, waiting):
            with pytest.raises(ApiError, match="has failed"):
                await texts(ended)
        assert not loop.healthy
        with pytest.raises(ApiError, match="has failed"):
            loop.submit(answer("later"))

    assert isinstance(during(loop, scene), RuntimeError)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA error: device-side assert triggered")],
    ids=["memory", "device"],
)
def test_a_failure_that_cannot_pass_ends_the_engine_at_once(model: Model, error: Exception) -> None:
    loop = engine(model, attention=Failing(model, lambda tokens: True, error))

    async def scene() -> None:
        only = answer("only")
        loop.submit(only)
        with pytest.raises(ApiError, match="has failed"):
            await texts(only)

    assert during(loop, scene) is error
