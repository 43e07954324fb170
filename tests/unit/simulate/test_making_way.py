"""Which arrivals end the run of an engine before its time."""

from __future__ import annotations

import pytest

from millrace.core.cost import Linear
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies.batching.split_fuse import Policy
from millrace.simulate import Job, ServerSpec
from millrace.simulate.server import Server


class Unsure(Policy):
    """Promises nothing of those who wait."""

    eager = False


def job(name: str, prompt: int, answer: int) -> Job:
    asked = Request(id=name, model="m", prompt_tokens=prompt, max_tokens=answer)
    return Job(t_s=0.0, request=asked, prompt_tokens=prompt, output_tokens=answer)


def begun(
    limits: Limits, prompt: int, answer: int, policy: Policy | None = None, *, ahead: bool = False
) -> Server:
    """An engine that computes one job, in steps of a second each."""
    spec = ServerSpec(
        id="r", spec=ReplicaSpec(models=("m",), limits=limits), cost=Linear(base_s=1.0), ahead=ahead
    )
    server = Server(spec, policy or Policy())
    server.add(job("first", prompt, answer))
    assert server.start(0.0)
    return server


def decoding(limits: Limits, policy: Policy | None = None) -> Server:
    """An engine whose only job decodes from the first second until the tenth."""
    server = begun(limits, 4, 10, policy)
    server.finish()
    assert server.start(1.0)
    assert server.end_s == 10.0
    return server


def test_a_prompt_that_fills_the_steps_goes_on_to_its_last_chunk() -> None:
    server = begun(Limits(step_tokens=4), 10, 5)
    assert server.end_s == 3.0
    server.add(job("second", 2, 5))
    assert server.make_way(0.5)
    assert server.end_s == 2.0
    server.add(job("third", 2, 5))
    assert not server.make_way(0.7)
    assert server.finish().first == ()
    server.start(2.0)
    assert [sequence.id for sequence in server.replica.running] == ["first", "second"]


def test_in_the_last_chunk_there_is_nothing_to_end_before() -> None:
    server = begun(Limits(step_tokens=4), 10, 5)
    assert not server.make_way(2.5)
    assert not server.cut(2.5)
    assert [sequence.id for sequence in server.finish().first] == ["first"]


@pytest.mark.parametrize(("policy", "ahead"), [(Unsure(), False), (Policy(), True)])
def test_who_might_be_seen_sooner_ends_the_run_with_the_step_under_way(policy: Policy, ahead: bool) -> None:
    server = begun(Limits(step_tokens=4), 10, 5, policy, ahead=ahead)
    server.add(job("second", 2, 5))
    assert server.make_way(0.5)
    assert server.end_s == 1.0


def test_who_finds_a_seat_ends_a_run_of_decodes() -> None:
    server = decoding(Limits(sequences=2))
    server.add(job("second", 2, 5))
    assert server.make_way(3.5)
    assert server.end_s == 4.0


def test_who_finds_no_seat_waits_until_somebody_leaves() -> None:
    server = decoding(Limits(sequences=1))
    server.add(job("second", 2, 5))
    assert not server.make_way(3.5)
    assert server.end_s == 10.0


def test_who_comes_behind_somebody_without_room_waits_too() -> None:
    server = decoding(Limits(kv_blocks=5, block_tokens=4))
    server.add(job("large", 16, 1))
    assert server.make_way(1.5)
    server.finish()
    assert server.start(2.0)
    server.add(job("small", 2, 1))
    assert not server.make_way(3.5)
    assert server.end_s == 10.0


def test_a_policy_that_promises_nothing_is_asked_again_whoever_comes() -> None:
    server = decoding(Limits(sequences=1), Unsure())
    server.add(job("second", 2, 5))
    assert server.make_way(3.5)
    assert server.end_s == 4.0
