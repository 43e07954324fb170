"""What a fleet spends while it serves, against figures worked out by hand and added up step by step."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec import Struct

from millrace.control import Controller
from millrace.core.cost import Roofline, StepShape
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import Measured
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Simulation, parse_faults, servers, simulate
from millrace.simulate.presence import Presence
from millrace.simulate.surroundings import Surroundings
from tests.property.test_world import fleet_of, limits, workloads


class Steady(Struct, frozen=True):
    """A second and ten joules for every step."""

    joules: float = 10.0

    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def step_j(self, shape: StepShape) -> float:
        return self.joules

    def own_s(self, shape: StepShape) -> float:
        return 1.0

    def experts_s(self, tokens: int) -> float:
        return 0.0

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        return self.joules


def job(name: str, t_s: float = 0.0, *, output: int = 4) -> Job:
    asked = Request(id=name, model="m", prompt_tokens=100, max_tokens=output)
    return Job(t_s=t_s, request=asked, prompt_tokens=100, output_tokens=output)


def spent(
    jobs: list[Job],
    *,
    replicas: int = 1,
    price_per_h: float | None = 36.0,
    idle_w: float | None = 3.0,
    cost: Steady | None = None,
    ranks: int = 1,
    **around: Any,
) -> Measured:
    spec = ReplicaSpec(models=("m",), limits=Limits(), price_per_h=price_per_h)
    fleet = [
        ServerSpec(id=f"r{n}", spec=spec, cost=cost or Steady(), idle_w=idle_w, ranks=ranks)
        for n in range(replicas)
    ]
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    return simulate(
        jobs,
        fleet,
        controller,
        load("batching", "split_fuse"),
        surroundings=Surroundings(**around),
        metered=True,
    ).measured


def test_steps_draw_their_joules_and_waiting_draws_the_rest() -> None:
    found = spent([job("a", t_s=6.0)])  # six seconds of waiting, then four steps
    assert found.energy_j == 6 * 3.0 + 4 * 10.0
    assert found.energy_per_token_j == found.energy_j / 4


def test_dollars_are_for_the_hours_of_all_replicas() -> None:
    found = spent([job("a", t_s=6.0)], replicas=2)
    assert found.cost_usd == pytest.approx(2 * 10 * 36.0 / 3600)
    assert found.usd_per_million_tokens == pytest.approx(0.2 / 4 * 1e6)


def test_a_replica_that_is_gone_costs_nothing_and_one_that_starts_does() -> None:
    faults = parse_faults("kill r1 at 2s; start r1 at 8s; kill r1 at 100s")
    found = spent([job("a", t_s=6.0)], replicas=2, faults=faults)
    assert found.cost_usd == pytest.approx((10 + 4) * 0.01)


def test_a_replica_that_joins_late_costs_from_then_on() -> None:
    found = spent([job("a")], replicas=2, faults=parse_faults("start r1 at 3s"))
    assert found.cost_usd == pytest.approx((4 + 1) * 0.01)


def test_engines_that_slow_each_other_down_wait_for_the_longer_part() -> None:
    found = spent([job("a")], slowdowns=(1.5,))
    assert found.energy_j == pytest.approx(4 * 10.0 + 2 * 3.0)


@pytest.mark.parametrize("unknown", [{"idle_w": None}, {"cost": Steady(nan)}])
@pytest.mark.parametrize("ranks", [1, 2])
def test_joules_that_are_not_known_are_not_taken_for_none(unknown: dict[str, Any], ranks: int) -> None:
    found = spent([job("a")], ranks=ranks, **unknown)
    assert (found.energy_j, found.energy_per_token_j) == (None, None)
    assert found.cost_usd is not None


def test_a_price_that_is_not_known_is_not_taken_for_none() -> None:
    found = spent([job("a")], price_per_h=None)
    assert (found.cost_usd, found.usd_per_million_tokens) == (None, None)


def test_a_fleet_that_answers_nothing_has_no_price_for_a_token() -> None:
    found = spent([job("a", output=10_000)])
    assert found.completed == 0
    assert (found.energy_per_token_j, found.usd_per_million_tokens) == (None, None)


@settings(max_examples=40, deadline=None)
@given(jobs=workloads(), limit=limits)
def test_leaps_draw_what_the_steps_draw(jobs: list[Job], limit: Limits) -> None:
    sheet = parse_fleet("h100 llama-3-8b")[0].roofline

    def play(*, leaping: bool) -> Simulation:
        fleet = [ServerSpec(id=one.id, spec=one.spec, cost=sheet, idle_w=100.0) for one in fleet_of(2, limit)]
        controller = Controller(load("routing", "least_work"), load("queueing", "fcfs"))
        batching = load("batching", "split_fuse")
        return simulate(jobs, fleet, controller, batching, leaping=leaping, metered=True)

    leapt, stepped = play(leaping=True).measured, play(leaping=False).measured
    assert leapt.energy_j == pytest.approx(stepped.energy_j, rel=1e-9)


@pytest.mark.parametrize("fleet", ["h100 llama-3-70b tp=4", "h200 mixtral-8x7b tp=2 ep=2"])
def test_a_described_fleet_draws_between_idle_and_full_power(fleet: str) -> None:
    groups = parse_fleet(f"2x {fleet}")
    device = groups[0].device
    assert device.idle_w is not None
    assert device.tdp_w is not None
    assert isinstance(groups[0].roofline, Roofline)
    asked = Request(id="q", model=groups[0].model.name, prompt_tokens=500, max_tokens=50)
    one = Job(t_s=1.0, request=asked, prompt_tokens=500, output_tokens=50)
    controller = Controller(load("routing", "least_work"), load("queueing", "fcfs"))
    found = simulate([one], servers(groups), controller, load("batching", "split_fuse"), metered=True)
    assert found.measured.energy_j is not None
    assert 8 * device.idle_w < found.measured.energy_j / found.simulated_s < 8 * device.tdp_w


def test_presence_is_cut_at_the_end() -> None:
    presence = Presence(["r"])
    presence.leave("r", 2.0)
    presence.leave("r", 3.0)  # it is gone already
    presence.come("r", 5.0)
    presence.come("r", 6.0)  # it is there already
    assert [presence.seconds("r", end_s) for end_s in (1.0, 4.0, 7.0)] == [1.0, 2.0, 4.0]
