"""The simulated world against figures worked out by hand."""

from __future__ import annotations

import gc

import pytest
from msgspec import Struct

from millrace.control import Controller, ControlSettings
from millrace.control.log import replay
from millrace.core.cost import StepShape
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request, Slo
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Simulation, simulate
from millrace.simulate.surroundings import Surroundings


class PerToken(Struct, frozen=True):
    """A second per step and a hundredth for each token in it."""

    def step_s(self, shape: StepShape) -> float:
        return 1.0 + 0.01 * shape.tokens

    def step_j(self, shape: StepShape) -> float:
        return 0.0


def job(id: str, t_s: float = 0.0, *, prompt: int = 100, output: int = 3, **fields: object) -> Job:
    asked = Request(id=id, model="m", prompt_tokens=prompt, max_tokens=output)
    return Job(t_s=t_s, request=asked, prompt_tokens=prompt, output_tokens=output, **fields)  # type: ignore[arg-type]


def servers(count: int, **limits: int) -> list[ServerSpec]:
    spec = ReplicaSpec(models=("m",), limits=Limits(**limits))  # type: ignore[arg-type]
    return [ServerSpec(id=f"r{n}", spec=spec, cost=PerToken()) for n in range(count)]


def run(jobs: list[Job], fleet: list[ServerSpec], routing: str = "round_robin", **how: object) -> Simulation:
    settings = how.pop("settings", None)
    controller = Controller(load("routing", routing), load("queueing", "fcfs"), settings)  # type: ignore[arg-type]
    return simulate(jobs, fleet, controller, load("batching", "split_fuse"), **how)  # type: ignore[arg-type]


def by_id(found: Simulation) -> dict[str, Outcome]:
    return {outcome.id: outcome for outcome in found.outcomes}


def test_one_request_costs_its_prefill_and_its_decodes() -> None:
    only = run([job("a", 5.0)], servers(1)).outcomes[0]
    assert only.ttft_s == pytest.approx(2.0)
    assert only.tpot_s == pytest.approx(1.01)
    assert only.e2e_s == pytest.approx(2.0 + 2 * 1.01)
    assert (only.status, only.output_tokens, only.replica) == ("completed", 3, "r0")


def test_a_request_that_comes_during_a_step_waits_for_its_end() -> None:
    found = by_id(run([job("a"), job("b", 0.5)], servers(1)))
    assert found["a"].ttft_s == pytest.approx(2.0)
    assert found["b"].ttft_s == pytest.approx(2.0 + (1.0 + 0.01 * 101) - 0.5)


def test_two_replicas_work_side_by_side() -> None:
    found = by_id(run([job("a"), job("b")], servers(2)))
    assert found["a"].replica != found["b"].replica
    assert found["a"].ttft_s == found["b"].ttft_s == pytest.approx(2.0)


def test_engines_that_share_a_machine_slow_each_other_down() -> None:
    shared = Surroundings(slowdowns=(1.0, 2.0))
    alone = run([job("a")], servers(2), surroundings=shared)
    together = by_id(run([job("a"), job("b"), job("c")], servers(3), surroundings=shared))
    assert alone.outcomes[0].ttft_s == pytest.approx(2.0)
    assert together["b"].ttft_s == together["c"].ttft_s == pytest.approx(4.0)


def test_the_way_to_and_from_an_engine_is_part_of_latency() -> None:
    way = Surroundings(to_engine_s=0.25, from_engine_s=0.5)
    assert run([job("a")], servers(1), surroundings=way).outcomes[0].ttft_s == pytest.approx(2.75)


def test_shared_blocks_are_computed_once_and_counted_as_cached() -> None:
    shared = tuple(range(1, 7))
    jobs = [job("a", blocks=shared), job("b", 10.0, blocks=shared)]
    found = by_id(run(jobs, servers(1)))
    assert found["a"].cached_tokens == 0
    assert found["b"].cached_tokens == 96
    assert found["b"].ttft_s == pytest.approx(1.04)


def test_a_request_too_long_for_its_engine_fails_alone() -> None:
    found = run([job("long", prompt=900), job("ok")], servers(1, context_tokens=512))
    assert found.measured.failed == 1
    assert "context" in (by_id(found)["long"].error or "") or "900" in (by_id(found)["long"].error or "")
    assert by_id(found)["ok"].status == "completed"


def test_a_request_for_a_model_nobody_serves_is_refused() -> None:
    asked = Request(id="x", model="other", prompt_tokens=1, max_tokens=1)
    found = run([Job(t_s=0.0, request=asked, prompt_tokens=1, output_tokens=1)], servers(1))
    assert (found.measured.refused, found.measured.completed) == (1, 0)


def test_without_a_single_job_nothing_happens() -> None:
    assert run([], servers(1)).measured.requests == 0


def test_jobs_out_of_order_are_an_error_that_names_the_job() -> None:
    with pytest.raises(ValueError, match="'b' is due"):
        run([job("a", 2.0), job("b", 1.0)], servers(1))


def test_the_same_run_writes_the_same_log_and_it_replays() -> None:
    logs: list[list[bytes]] = [[], []]
    for lines in logs:
        run([job(f"q{n}", n * 0.7) for n in range(50)], servers(3), "least_work", log=lines.append)
    assert logs[0] == logs[1]
    replayed = replay(logs[0])
    assert replayed.events == 3 + 3 * 50
    assert replayed.identical == replayed.actions == 50


def test_objectives_decide_what_counts_as_good() -> None:
    found = run([job("first"), job("second")], servers(1), slo=Slo(ttft_s=2.5))
    assert found.measured.slo_attainment == 0.5
    assert run([job("a")], servers(1), slo=Slo(ttft_s=2.5)).measured.slo_attainment == 1.0


def test_load_reports_come_at_every_scrape_and_stop_with_the_work() -> None:
    lines: list[bytes] = []
    run([job("a")], servers(1), surroundings=Surroundings(scrape_s=1.0), log=lines.append)
    reports = [line for line in lines if b'"report":' in line]
    assert len(reports) == 5  # the request takes 4.02 s


def test_settings_reach_the_controller() -> None:
    found = run([job("a")], servers(1), settings=ControlSettings(max_attempts=1))
    assert found.measured.completed == 1


def test_without_outcomes_the_summary_stays_and_jobs_may_be_generated() -> None:
    jobs = [job(f"q{n}", n / 4) for n in range(9)]
    seen: list[Outcome] = []
    kept = run(jobs, servers(2))
    lean = run(iter(jobs), servers(2), keep_outcomes=False, progress=seen.append)  # type: ignore[arg-type]
    assert (lean.measured, lean.simulated_s, seen) == (kept.measured, kept.simulated_s, kept.outcomes)
    with pytest.raises(ValueError, match="simulate with keep_outcomes=True"):
        _ = lean.outcomes


def test_python_looks_for_cycles_as_often_as_before_when_a_simulation_is_over() -> None:
    before = gc.get_threshold()
    run([job("a")], servers(1))
    assert gc.get_threshold() == before
