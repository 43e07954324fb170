"""Ranks that share experts: each has its own batch, and all wait for the slowest."""

from __future__ import annotations

import pytest
from msgspec import Struct
from msgspec.structs import replace

from millrace.control import Controller
from millrace.core.cost import StepShape
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, simulate
from millrace.simulate.bill import MeteredLockstep
from millrace.simulate.lockstep import Lockstep

LIMITS = Limits(step_tokens=100, sequences=8, kv_blocks=100, context_tokens=512)
BATCHING = load("batching", "split_fuse")


class Shared(Struct, frozen=True):
    """A second for each token of a rank's own, and a hundredth for each token of all."""

    def own_s(self, shape: StepShape) -> float:
        return float(shape.tokens)

    def experts_s(self, tokens: int) -> float:
        return tokens / 100

    def step_s(self, shape: StepShape) -> float:
        return self.own_s(shape) + self.experts_s(shape.tokens)

    def step_j(self, shape: StepShape) -> float:
        return self.rank_j(shape, shape.tokens, self.step_s(shape))

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        """Ten joules for each token of its own, one for each of all, a watt besides."""
        return 10.0 * shape.tokens + tokens + seconds


class Alone(Struct, frozen=True):
    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def step_j(self, shape: StepShape) -> float:
        return 0.0


def spec(*, ranks: int = 2, ahead: bool = False) -> ServerSpec:
    replica = ReplicaSpec(models=("m",), limits=LIMITS)
    return ServerSpec(id="r0", spec=replica, cost=Shared(), ranks=ranks, ahead=ahead)


def job(name: str, *, at: float = 0.0, prompt: int = 10, output: int = 1) -> Job:
    request = Request(id=name, model="m", prompt_tokens=prompt, max_tokens=output)
    return Job(t_s=at, request=request, prompt_tokens=prompt, output_tokens=output)


def run(jobs: list[Job], server: ServerSpec) -> dict[str, Outcome]:
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    return {outcome.id: outcome for outcome in simulate(jobs, [server], controller, BATCHING).outcomes}


def test_a_step_lasts_as_long_as_the_slowest_rank_and_what_all_do_together() -> None:
    # The first request finds both ranks idle; the others share the next step: 30 tokens here, 10 there.
    done = run([job("a", prompt=1), job("b", prompt=30), job("c", prompt=10)], spec())
    assert done["a"].finished_s == pytest.approx(1 + 0.01)
    assert done["b"].finished_s == done["c"].finished_s == pytest.approx(1.01 + 30 + 0.4)


def test_an_idle_rank_costs_nothing() -> None:
    assert run([job("a", prompt=20)], spec())["a"].finished_s == pytest.approx(20.2)


def test_requests_go_where_the_fewest_wait_and_run() -> None:
    engine = Lockstep(spec(), BATCHING)
    for name in "abc":
        engine.add(job(name))
    assert [rank.load for rank in engine.ranks] == [(2, 0), (1, 0)]
    assert engine.start(0.0)
    assert [rank.load for rank in engine.ranks] == [(0, 2), (0, 1)]
    for name in "defg":  # one that waits counts as four that run
        engine.add(job(name))
    assert [rank.load for rank in engine.ranks] == [(2, 2), (2, 1)]
    report = engine.report(1.0)
    assert (report.waiting, report.running, report.kv_free_tokens) == (4, 3, 2 * 1600 - 3 * 16)


def test_a_request_is_taken_back_wherever_it_is() -> None:
    engine = Lockstep(spec(), BATCHING)
    engine.add(job("a"))
    engine.abort("a")
    engine.abort("a")
    engine.abort("never here")
    assert not engine.start(0.0)
    assert not engine.busy


def test_a_step_is_never_cut() -> None:
    engine = Lockstep(spec(), BATCHING)
    engine.add(job("a", prompt=50, output=3))
    assert engine.start(0.0)
    assert (engine.busy, engine.cut(1.0), engine.end_s) == (True, False, 50.5)
    progress = engine.finish()
    assert [sequence.id for sequence in progress.first] == ["a"]
    assert (progress.ended, engine.busy) == ([], False)


def test_one_that_can_never_fit_is_refused() -> None:
    done = run([job("a", prompt=600), job("b")], spec())
    assert (done["a"].status, done["b"].status) == ("failed", "completed")


def test_ranks_need_a_price_for_what_they_share() -> None:
    server = ServerSpec(id="r0", spec=ReplicaSpec(models=("m",)), cost=Alone(), ranks=2)
    with pytest.raises(ValueError, match="r0 has 2 ranks; its cost must tell what they share"):
        Lockstep(server, BATCHING)


def test_every_rank_draws_for_its_own_part_for_its_experts_and_for_waiting() -> None:
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    server = replace(spec(), idle_w=3.0)
    jobs = [job("a", prompt=20), job("b", at=100.0, prompt=30), job("c", at=100.5, prompt=10)]
    found = simulate(jobs, [server], controller, BATCHING, metered=True)
    # a and b find both ranks idle, c waits for the end of b: each step is one rank's, and the other's wait.
    tokens, busy_s = 60, (20 + 0.2) + (30 + 0.3) + (10 + 0.1)
    assert found.simulated_s == pytest.approx(100 + 30.3 + 10.1)
    waited_s = found.simulated_s - busy_s
    assert found.measured.energy_j == pytest.approx(10 * tokens + 2 * tokens + 2 * busy_s + 3 * waited_s)


def test_ranks_that_work_together_draw_together() -> None:
    engine = MeteredLockstep(replace(spec(), idle_w=3.0), BATCHING)
    engine.add(job("a", prompt=30))
    engine.add(job("b", prompt=10))
    assert engine.start(0.0, 2.0)  # twice as slow: its own joules are those of half the time
    engine.finish()
    own_s = 30 + 0.4
    assert engine.meter.energy_j(2 * own_s) == pytest.approx(400 + 2 * 40 + 2 * own_s + 3 * own_s)


def test_gaps_between_tokens_are_those_of_all_ranks_and_as_long_as_their_common_steps() -> None:
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    jobs = [job("a", output=3), job("b", prompt=20, output=2)]
    found = simulate(jobs, [spec()], controller, BATCHING, itl=True)
    # Steps: a's prompt alone, then b's beside a's second token, then one token of each.
    assert found.itl_s is not None
    assert found.itl_s.count == 3
    assert found.itl_s.mean == pytest.approx((20 + 0.21 + 2 * (1 + 0.02)) / 3)
    assert found.itl_s.min == pytest.approx(1.02)
    assert found.itl_s.max == pytest.approx(20.21)
