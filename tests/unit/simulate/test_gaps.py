"""Inter-token gaps of one engine whose steps take a second each."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec import Struct

from millrace.core.cost import StepShape
from millrace.core.histogram import FINEST_S, WIDTH
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec
from millrace.simulate.gaps import Gaps
from millrace.simulate.server import Server


class Second(Struct, frozen=True):
    """Whatever it does, a step takes a second."""

    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def step_j(self, shape: StepShape) -> float:
        return 0.0


class Engine:
    """An engine that is told what happens when, at moments that never go back."""

    def __init__(self, batching: str, **limits: int) -> None:
        spec = ReplicaSpec(models=("m",), limits=Limits(**limits))  # type: ignore[arg-type]
        self.server = Server(ServerSpec(id="r", spec=spec, cost=Second()), load("batching", batching))
        self.gaps = self.server.gaps = Gaps()

    def add(self, now_s: float, name: str, *, prompt: int = 4, answer: int) -> None:
        self.until(now_s)
        asked = Request(id=name, model="m", prompt_tokens=prompt, max_tokens=answer)
        self.server.cut(now_s)
        self.server.add(Job(t_s=now_s, request=asked, prompt_tokens=prompt, output_tokens=answer))
        if not self.server.busy:
            self.server.start(now_s)

    def abort(self, now_s: float, name: str) -> None:
        self.until(now_s)
        self.server.cut(now_s)
        self.server.abort(name)

    def kill(self, now_s: float) -> None:
        self.until(now_s)
        self.server.drop(now_s)

    def until(self, now_s: float) -> None:
        while self.server.busy and self.server.end_s <= now_s:
            self.server.finish()
            self.server.start(self.server.end_s)

    def found(self) -> dict[int, int]:
        """How many gaps of each whole number of seconds there were, once there is nothing to do."""
        self.until(1e6)
        found: Counter[int] = Counter()
        for place, count in self.gaps.seen.bins().items():
            found[round(FINEST_S * WIDTH ** (place + 0.5))] += count
        return found


def test_each_token_but_the_first_ends_a_gap() -> None:
    engine = Engine("split_fuse")
    engine.add(0.0, "a", answer=4)
    assert engine.found() == {1: 3}


def test_a_request_of_one_token_has_no_gap() -> None:
    engine = Engine("split_fuse")
    engine.add(0.0, "a", answer=1)
    assert engine.found() == {}


def test_who_waits_for_prompts_of_others_has_one_long_gap() -> None:
    engine = Engine("prefill_first")
    engine.add(0.0, "a", answer=4)
    engine.add(1.5, "b", answer=3)  # computed in the third second, in which `a` gets nothing
    assert engine.found() == {1: 4, 2: 1}


def test_who_is_complete_with_its_first_token_is_not_waited_for() -> None:
    engine = Engine("prefill_first")
    engine.add(0.0, "a", answer=4)
    engine.add(1.5, "b", answer=1)
    assert engine.found() == {1: 2, 2: 1}


def test_who_loses_its_blocks_waits_until_they_are_computed_again() -> None:
    engine = Engine("split_fuse", kv_blocks=6, block_tokens=1, sequences=2)
    engine.add(0.0, "a", prompt=2, answer=4)
    engine.add(0.5, "b", prompt=2, answer=3)  # first token at 2 s, then out until `a` is done at 4 s
    assert engine.found() == {1: 3 + 1, 3: 1}


def test_who_is_taken_back_while_computed_again_has_no_gap_for_it() -> None:
    engine = Engine("split_fuse", kv_blocks=6, block_tokens=1, sequences=2)
    engine.add(0.0, "a", prompt=2, answer=4)
    engine.add(0.5, "b", prompt=2, answer=3)
    engine.abort(4.5, "b")
    assert engine.found() == {1: 3}


@pytest.mark.parametrize(("at_s", "gaps"), [(3.5, {1: 5 + 1}), (1.5, {1: 5})])
def test_who_is_taken_back_gets_no_token_of_the_step_under_way(at_s: float, gaps: dict[int, int]) -> None:
    engine = Engine("split_fuse")
    engine.add(0.0, "a", answer=6)
    engine.add(0.0, "b", answer=9)
    engine.abort(at_s, "b")
    assert engine.found() == gaps


def test_who_is_taken_back_while_others_came_first_has_no_gap() -> None:
    engine = Engine("prefill_first")
    engine.add(0.0, "a", answer=4)
    engine.add(1.5, "b", answer=3)
    engine.abort(3.5, "b")
    assert engine.found() == {1: 2, 2: 1}


def test_an_engine_that_goes_down_keeps_the_gaps_of_the_steps_that_ended() -> None:
    engine = Engine("split_fuse")
    engine.add(0.0, "a", answer=9)
    engine.kill(4.5)
    assert engine.found() == {1: 3}
    engine.add(10.0, "b", answer=3)
    assert engine.found() == {1: 3 + 2}


def test_the_gaps_before_count_if_it_goes_down_in_the_step_in_which_one_was_taken_back() -> None:
    engine = Engine("split_fuse")
    engine.add(0.0, "a", answer=9)
    engine.abort(4.5, "a")
    engine.kill(4.7)
    assert engine.found() == {1: 3}
