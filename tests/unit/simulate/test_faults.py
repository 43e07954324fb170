"""Fault scripts, and what they do to replicas, against figures worked out by hand."""

from __future__ import annotations

import pytest
from msgspec import Struct

from millrace.control import Controller, ControlSettings
from millrace.control.log import replay
from millrace.core.cost import StepShape
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, simulate
from millrace.simulate.faults import Fault, late_joiners, parse_faults
from millrace.simulate.surroundings import Surroundings


class Shared(Struct, frozen=True):
    """A second per step, whoever shares in it."""

    def own_s(self, shape: StepShape) -> float:
        return 1.0

    def experts_s(self, tokens: int) -> float:
        return 0.0

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        return 0.0

    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def step_j(self, shape: StepShape) -> float:
        return 0.0


def job(name: str, t_s: float = 0.0, *, output: int = 3, blocks: tuple[int, ...] = ()) -> Job:
    asked = Request(id=name, model="m", prompt_tokens=100, max_tokens=output)
    return Job(t_s=t_s, request=asked, prompt_tokens=100, output_tokens=output, blocks=blocks)


def run(
    script: str,
    jobs: list[Job],
    *,
    replicas: int = 2,
    cold_start_s: float = 0.0,
    ranks: int = 1,
    **way: object,
) -> tuple[dict[str, Outcome], list[bytes]]:
    spec = ReplicaSpec(models=("m",), limits=Limits())
    fleet = [
        ServerSpec(id=f"r{n}", spec=spec, cost=Shared(), cold_start_s=cold_start_s, ranks=ranks)
        for n in range(replicas)
    ]
    controller = Controller(
        load("routing", "round_robin"), load("queueing", "fcfs"), ControlSettings(max_hold_s=5.0)
    )
    log: list[bytes] = []
    surroundings = Surroundings(faults=parse_faults(script), **way)  # type: ignore[arg-type]
    batching = load("batching", "split_fuse")
    found = simulate(jobs, fleet, controller, batching, surroundings=surroundings, log=log.append)
    assert not controller.state.flights
    assert all(r.waiting == r.running == 0 for r in controller.state.replicas.values())
    assert replay(log).first_difference is None
    return {outcome.id: outcome for outcome in found.outcomes}, log


def phases(log: list[bytes], replica: str) -> list[str]:
    marks = (b'"starting"', b'"ready"', b'"draining"', b'"gone"')
    said = [
        line for line in log if b"Reported" in line and f'"{replica}"'.encode() in line.split(b'"spec"')[0]
    ]
    return [next(m for m in marks if m in line).decode().strip('"') for line in said]


def test_scripts_are_read_from_lines_and_semicolons_and_put_in_order() -> None:
    script = "at 2min kill r3; at 500ms drain r1  # early\n\n# nothing\nat 1.5 s start r3"
    assert parse_faults(script) == (
        Fault(0.5, "drain", "r1"),
        Fault(1.5, "start", "r3"),
        Fault(120.0, "kill", "r3"),
    )
    assert parse_faults("") == ()


def test_the_time_may_come_last_and_lines_may_be_json() -> None:
    script = 'start r3 at 3m; kill gpu-3 at 120s # gone\n{"at_s": 1, "deed": "drain", "replica": "r;1"}\n'
    assert parse_faults(script) == (
        Fault(1.0, "drain", "r;1"),
        Fault(120.0, "kill", "gpu-3"),
        Fault(180.0, "start", "r3"),
    )


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (
            "at 1s kill r0\nkill r1",
            "line 2: cannot read the fault 'kill r1'; write it like 'kill r3 at 120s'",
        ),
        ("at 1s kill", "line 1: cannot read"),
        ("at 1s kil r0", "line 1: unknown fault 'kil'; did you mean 'kill'"),
        ("at 1d kill r0", "line 1: unknown unit of time 'd'"),
        ("at 5 kill r0", "line 1: unknown unit of time ''"),
        ("kill r0 at 1d", "line 1: unknown unit of time 'd'"),
        ('{"at_s": 1, "deed": "kil", "replica": "r0"}', "line 1: Invalid enum value 'kil'.*; write it like"),
        ('\n{"at_s": 1, "deed": "kill"}', "line 2: .*missing required field `replica`"),
        ('{"at_s": 1, "deed": "kill", "replica": "r0", "for": 3}', "line 1: .*unknown field `for`"),
        ('{"at_s": -1, "deed": "kill", "replica": "r0"}', "line 1: at_s is -1.0; it must not be negative"),
    ],
)
def test_a_script_that_cannot_be_read_is_refused_with_its_line(script: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_faults(script)


def test_a_fault_of_a_replica_that_is_not_in_the_fleet_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown replica 'r7'; .*known: r0, r1"):
        run("at 1s kill r7", [])


def test_whoever_is_started_first_was_not_there_before() -> None:
    assert late_joiners(parse_faults("at 2s start r1; at 1s kill r0; at 3s start r0")) == {"r1"}


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_has_no_first_token_is_tried_elsewhere(ranks: int) -> None:
    found, _ = run("at 0.5s kill r0", [job("a")], ranks=ranks)
    assert (found["a"].status, found["a"].replica) == ("completed", "r1")
    assert (found["a"].ttft_s, found["a"].e2e_s) == (1.5, 3.5)


def test_what_has_its_first_token_fails() -> None:
    found, log = run("at 1.5s kill r0", [job("a")])
    assert (found["a"].status, found["a"].finished_s, found["a"].output_tokens) == ("failed", 1.5, 0)
    assert "went down" in (found["a"].error or "")
    assert phases(log, "r0") == ["ready", "gone"]


def test_what_nobody_else_can_take_is_held_until_a_replica_is_back() -> None:
    script = "at 0.5s kill r0; at 1s start r0"
    found, log = run(script, [job("a")], replicas=1, cold_start_s=2.0)
    assert (found["a"].status, found["a"].ttft_s) == ("completed", 4.0)
    assert phases(log, "r0") == ["ready", "gone", "starting", "ready"]


def test_a_replica_killed_while_it_starts_is_not_ready_later() -> None:
    script = "at 1s kill r0; at 2s start r0; at 3s kill r0; at 3.5s start r0"
    found, log = run(script, [job("a", 1.2)], replicas=1, cold_start_s=2.0)
    assert phases(log, "r0") == ["ready", "gone", "starting", "gone", "starting", "ready"]
    assert found["a"].first_token_s == 6.5


def test_a_run_is_over_when_its_last_request_is_whatever_the_script_says_of_later() -> None:
    spec = ReplicaSpec(models=("m",), limits=Limits())
    found = simulate(
        [job("a")],
        [ServerSpec(id="r0", spec=spec, cost=Shared())],
        Controller(load("routing", "round_robin"), load("queueing", "fcfs")),
        load("batching", "split_fuse"),
        surroundings=Surroundings(faults=parse_faults("at 1h kill r0")),
    )
    assert found.simulated_s == 3.0


def test_without_a_replica_in_time_a_request_is_refused() -> None:
    found, _ = run("at 0.5s kill r0", [job("a")], replicas=1)
    assert (found["a"].status, found["a"].finished_s) == ("refused", 5.5)


def test_a_killed_replica_has_lost_its_prefix_cache() -> None:
    jobs = [job(name, t_s, blocks=tuple(range(1, 7))) for name, t_s in (("a", 0), ("b", 10), ("c", 20))]
    found, _ = run("at 15s kill r0; at 16s start r0", jobs, replicas=1)
    assert [found[name].cached_tokens for name in "abc"] == [0, 96, 0]


def test_a_draining_replica_finishes_what_it_has_and_takes_nothing_more() -> None:
    found, log = run("at 0.5s drain r0", [job("a"), job("b", 0.2), job("c", 0.6), job("d", 0.7)])
    assert [found[name].replica for name in "abcd"] == ["r0", "r1", "r1", "r1"]
    assert all(outcome.status == "completed" for outcome in found.values())
    assert phases(log, "r0") == ["ready", "draining", "gone"]


def test_an_idle_replica_that_drains_is_gone_at_once_and_what_is_so_already_stays() -> None:
    script = "at 1s drain r0; at 2s drain r0; at 2s kill r0; at 3s start r0; at 3s start r0; at 4s start r0"
    _, log = run(script, [])
    assert phases(log, "r0") == ["ready", "draining", "gone", "starting", "ready"]


def test_a_late_joiner_is_known_from_the_beginning_but_serves_only_once_it_is_ready() -> None:
    found, log = run("at 1s start r0", [job("a")], replicas=1, cold_start_s=1.0)
    assert found["a"].ttft_s == 3.0
    assert phases(log, "r0") == ["gone", "starting", "ready"]


def test_what_was_on_its_way_to_a_dead_replica_is_tried_elsewhere() -> None:
    found, _ = run("at 1s kill r0", [job("a", 0.9)], to_engine_s=0.25, from_engine_s=0.5)
    assert (found["a"].status, found["a"].replica) == ("completed", "r1")
    # It is told at 1.65 s that nobody is there; the other one has it at 1.9 s.
    assert found["a"].first_token_s == pytest.approx(1.9 + 1.0 + 0.5)


def test_what_left_a_replica_before_its_death_still_arrives() -> None:
    found, _ = run("at 1.1s kill r0", [job("a", output=1), job("b", 0.1)], from_engine_s=0.5, replicas=1)
    assert (found["a"].status, found["a"].finished_s) == ("completed", 1.5)
    assert found["b"].status == "refused"


def test_with_scrapes_phases_are_heard_at_the_next_one() -> None:
    found, log = run("at 0.5s kill r0", [job("a", 0.6), job("b", 0.7), job("c", 2.5)], scrape_s=2.0)
    assert [found[name].replica for name in "abc"] == ["r1", "r1", "r1"]
    assert phases(log, "r0")[:2] == ["ready", "gone"]
    assert any(b"replica_down" in line for line in log)


def test_a_killed_engine_no_longer_slows_the_others_on_its_machine() -> None:
    found, _ = run("at 1.5s kill r0", [job("a"), job("b", 10.0)], slowdowns=(1.0, 2.0))
    assert (found["a"].status, found["b"].ttft_s) == ("failed", 1.0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_with_failover_an_answer_goes_on_after_the_tokens_that_it_had(ranks: int) -> None:
    """Steps take a second. r0 gives tokens at 1 s, 2 s and 3 s, and r1 the other two at 4.5 s and 5.5 s."""
    outcomes, log = run("kill r0 at 3.5s", [job("a", output=5)], ranks=ranks, failover=True)
    one = outcomes["a"]
    assert (one.status, one.replica, one.prompt_tokens, one.output_tokens) == ("completed", "r1", 100, 5)
    assert (one.first_token_s, one.finished_s) == (1.0, 5.5)
    assert sum(b'"resume_tokens":3' in line for line in log) == 1


def test_an_answer_that_loses_two_replicas_has_its_tokens_once() -> None:
    outcomes, _ = run("kill r0 at 2.5s; kill r2 at 4.6s", [job("a", output=6)], replicas=3, failover=True)
    assert (outcomes["a"].output_tokens, outcomes["a"].finished_s) == (6, 6.6)


def test_an_answer_that_can_go_on_nowhere_has_failed() -> None:
    outcomes, _ = run("kill r0 at 2.5s", [job("a", output=6)], replicas=1, failover=True)
    assert (outcomes["a"].status, outcomes["a"].finished_s) == ("failed", 7.5)


def test_who_had_no_token_yet_is_begun_again_with_failover_too() -> None:
    outcomes, log = run("kill r0 at 0.5s", [job("a")], failover=True)
    assert (outcomes["a"].status, outcomes["a"].output_tokens) == ("completed", 3)
    assert not any(b"resume_tokens" in line for line in log)
