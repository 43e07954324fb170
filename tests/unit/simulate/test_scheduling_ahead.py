"""Engines that decide on a step while the one before it is under way."""

from __future__ import annotations

import pytest
from msgspec import Struct

from millrace.core.cost import StepShape
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, Server, ServerSpec


class Second(Struct, frozen=True):
    """Every step takes a second."""

    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def step_j(self, shape: StepShape) -> float:
        return 0.0


def server(*, ahead: bool = True) -> Server:
    limits = Limits(step_tokens=100, sequences=4, kv_blocks=50, context_tokens=512)
    spec = ServerSpec(id="r0", spec=ReplicaSpec(models=("m",), limits=limits), cost=Second(), ahead=ahead)
    return Server(spec, load("batching", "split_fuse"))


def job(name: str, *, prompt: int = 10, output: int = 5) -> Job:
    request = Request(id=name, model="m", prompt_tokens=prompt, max_tokens=output)
    return Job(t_s=0.0, request=request, prompt_tokens=prompt, output_tokens=output)


def first_token_s(engine: Server, name: str) -> float:
    while True:
        found = [sequence.id for sequence in engine.finish().first]
        if name in found:
            return engine.end_s
        assert engine.start(engine.end_s)


@pytest.mark.parametrize(("ahead", "seconds"), [(False, 2.0), (True, 3.0)])
def test_who_comes_during_a_step_waits_for_the_next_one_too(*, ahead: bool, seconds: float) -> None:
    engine = server(ahead=ahead)
    engine.add(job("a"))
    assert engine.start(0.0)
    engine.add(job("b"))
    assert first_token_s(engine, "b") == seconds


def test_an_idle_engine_takes_a_request_at_once() -> None:
    engine = server()
    engine.add(job("a", output=1))
    assert engine.start(0.0)
    engine.add(job("b"))
    assert first_token_s(engine, "a") == 1.0
    assert engine.start(1.0)  # nothing was decided for this step
    assert first_token_s(engine, "b") == 2.0


def test_those_not_seen_yet_wait_and_can_be_taken_back() -> None:
    engine = server()
    engine.add(job("a"))
    assert engine.start(0.0)
    engine.add(job("b"))
    engine.add(job("c"))
    assert (engine.load, engine.report(0.5).waiting) == ((2, 1), 2)
    engine.abort("b")
    engine.finish()
    assert engine.start(1.0)
    assert engine.load == (1, 1)


def test_one_that_can_never_fit_is_refused_at_once() -> None:
    engine = server()
    engine.add(job("a"))
    assert engine.start(0.0)
    with pytest.raises(ValueError, match="shorten the prompt or lower max_tokens"):
        engine.add(job("b", prompt=600))
    assert engine.tokens == 10
    assert server().tokens == 0
