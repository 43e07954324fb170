"""The search for the highest rate that holds, on curves whose answer is known and on a small fleet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from millrace.control import Controller
from millrace.core.cost import Linear
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request, Slo
from millrace.policies import load
from millrace.simulate import Job, ServerSpec
from millrace.simulate.capacity import Probe, attempt, find_capacity, servable

FLEET = [
    ServerSpec(id="r0", spec=ReplicaSpec(models=("m",), limits=Limits(sequences=1)), cost=Linear(base_s=0.1))
]


def falling(limit_rps: float) -> Callable[[float], Probe]:
    """All of 1000 requests are in time up to half the limit, 95 % at the limit, evenly in between."""

    def probe(rate_rps: float) -> Probe:
        late = max(0.0, 0.1 * (rate_rps / limit_rps - 0.5))
        met = [n * late % 1 + late < 1 for n in range(1000)]
        return Probe(attained=sum(met) / 1000, met=met)

    return probe


def jobs(count: int, gap_s: float, *, output: int = 5) -> list[Job]:
    asked = Request(id="", model="m", prompt_tokens=10, max_tokens=output)
    return [
        Job(t_s=n * gap_s, request=replace(asked, id=str(n)), prompt_tokens=10, output_tokens=output)
        for n in range(count)
    ]


def tried(gap_s: float, goal: float = 0.9) -> Probe:
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    batching = load("batching", "split_fuse")
    return attempt(jobs(100, gap_s), FLEET, controller, batching, slo=Slo(ttft_s=1.0), goal=goal)


@pytest.mark.parametrize("start_rps", [0.02, 1.0, 7.0, 300.0])
def test_the_limit_is_found_from_wherever_the_search_starts(start_rps: float) -> None:
    found = find_capacity(falling(7.0), start_rps)
    assert found.capacity_rps == pytest.approx(7.0, rel=0.03)
    assert found.low_rps <= found.capacity_rps <= found.high_rps
    assert 6.5 < found.low_rps <= found.high_rps < 7.5
    assert found.bounded


def test_what_is_found_holds_and_what_is_just_above_does_not() -> None:
    found = find_capacity(falling(7.0), 1.0, tolerance=0.05)
    rates = {one.rate_rps: one.probe.attained for one in found.tried}
    above = min(rate for rate in rates if rate > found.capacity_rps)
    assert rates[found.capacity_rps] >= 0.95 > rates[above]
    assert above <= 1.05 * found.capacity_rps
    assert list(rates) == sorted(rates)


def test_a_goal_out_of_reach_is_a_capacity_of_0() -> None:
    found = find_capacity(lambda _: Probe(attained=0.5, met=[True, False]), 8.0)
    assert (found.capacity_rps, found.low_rps, found.bounded) == (0.0, 0.0, True)
    assert found.high_rps < 0.01


def test_a_search_without_an_upper_end_says_so() -> None:
    found = find_capacity(lambda _: Probe(attained=1.0, met=[True] * 9), 1.0)
    assert found.capacity_rps == found.high_rps == 1024
    assert not found.bounded


def test_runs_that_were_stopped_bound_the_interval() -> None:
    def probe(rate_rps: float) -> Probe:
        return Probe(attained=1.0, met=[True] * 9) if rate_rps <= 3 else Probe(attained=0.8)

    found = find_capacity(probe, 1.0)
    assert found.low_rps <= found.capacity_rps <= found.high_rps <= 3.1


def test_a_hopeless_search_of_stopped_runs_has_no_capacity() -> None:
    assert find_capacity(lambda _: Probe(attained=0.1), 1.0).capacity_rps == 0


def test_a_goal_and_a_rate_are_checked() -> None:
    with pytest.raises(ValueError, match="attain is 95"):
        find_capacity(falling(1.0), 1.0, goal=95)
    with pytest.raises(ValueError, match="rate"):
        find_capacity(falling(1.0), 0.0)


def test_requests_in_time_are_told_in_order_of_arrival() -> None:
    slow = tried(0.485, goal=0.5)  # each takes 0.5 s, so the queue grows to 1 s and beyond near the end
    assert slow.met == sorted(slow.met, reverse=True)
    assert slow.attained == sum(slow.met) / 100 < 1


def test_a_run_is_stopped_only_when_it_cannot_attain_the_goal() -> None:
    assert tried(1.0) == Probe(attained=1.0, met=[True] * 100)
    stopped = tried(0.1)
    assert stopped.met == []
    assert 0 < stopped.attained < 0.9


def test_requests_too_long_for_every_engine_are_left_out() -> None:
    every = [*jobs(3, 1.0), *jobs(2, 1.0, output=9000)]
    assert servable(every, FLEET) == every[:3]
