"""Conversations whose turns wait for each other, against figures worked out by hand."""

from __future__ import annotations

from msgspec import Struct

from millrace.control import Controller
from millrace.core.cost import StepShape
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.policies import load
from millrace.simulate import ServerSpec, Sessions, Surroundings, conversations_of, parse_faults, simulate


class Second(Struct, frozen=True):
    """A second per step."""

    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def step_j(self, shape: StepShape) -> float:
        return 0.0


def turn(name: str, t_s: float, session: str | None = "s", **fields: object) -> TraceRecord:
    return TraceRecord(id=name, t_s=t_s, input_tokens=10, output_tokens=2, session=session, **fields)  # type: ignore[arg-type]


def run(sessions: Sessions, script: str = "") -> dict[str, Outcome]:
    spec = ReplicaSpec(models=("m",), limits=Limits())
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    found = simulate(
        sessions,
        [ServerSpec(id="r0", spec=spec, cost=Second())],
        controller,
        load("batching", "split_fuse"),
        surroundings=Surroundings(faults=parse_faults(script)),
    )
    return {outcome.id: outcome for outcome in found.outcomes}


def talk(*records: TraceRecord, think_s: float | None = None) -> Sessions:
    return Sessions(conversations_of(records, "m", Slo(), think_s=think_s))


def arrivals(found: dict[str, Outcome]) -> dict[str, float]:
    return {name: outcome.scheduled_s for name, outcome in found.items()}


def test_a_turn_comes_when_the_one_before_has_ended_and_was_thought_over() -> None:
    found = run(talk(turn("a", 0.0), turn("b", 0.5), turn("c", 9.0), think_s=3.0))
    assert arrivals(found) == {"a": 0.0, "b": 5.0, "c": 10.0}
    assert found["b"].ttft_s == 1.0


def test_the_time_to_think_is_what_the_trace_leaves_after_the_answer() -> None:
    found = run(talk(turn("a", 0.0, elapsed_s=1.0), turn("b", 5.0), turn("c", 6.5)))
    assert arrivals(found) == {"a": 0.0, "b": 2.0 + 4.0, "c": 8.0 + 1.5}


def test_who_answered_longer_than_the_next_turn_took_is_answered_at_once() -> None:
    assert arrivals(run(talk(turn("a", 0.0, elapsed_s=7.0), turn("b", 5.0)))) == {"a": 0.0, "b": 2.0}


def test_turns_may_branch_from_a_parent() -> None:
    found = run(talk(turn("a", 0.0, None), *(turn(n, 1.0, None, parent="a") for n in "bc"), think_s=1.0))
    assert arrivals(found) == {"a": 0.0, "b": 3.0, "c": 3.0}


def test_requests_of_no_session_come_when_they_are_due() -> None:
    found = run(talk(turn("b", 0.7, None), turn("a", 0.0, None), turn("lost", 0.1, None, failed=True)))
    assert arrivals(found) == {"a": 0.0, "b": 0.7}


def test_a_conversation_whose_turn_does_not_complete_is_over() -> None:
    sessions = talk(*(turn(name, n) for n, name in enumerate("abc")), turn("z", 9.0, None), think_s=1.0)
    found = run(sessions, "at 1.5s kill r0; at 2s start r0")
    assert {name: outcome.status for name, outcome in found.items()} == {"a": "failed", "z": "completed"}
    assert list(run(sessions)) == ["a", "b", "c", "z"]


def test_conversations_are_taken_one_at_a_time() -> None:
    taken = []

    def endless() -> Sessions:
        def conversations() -> object:
            for n in range(3):
                taken.append(n)
                yield conversations_of([turn(f"q{n}", n * 10.0)], "m", Slo())[0]

        return Sessions(conversations())  # type: ignore[arg-type]

    opening = iter(endless())
    assert next(opening).request.id == "q0"
    assert taken == [0]


def test_models_are_renamed_as_in_any_other_workload() -> None:
    ((first,), (second,)) = conversations_of(
        [turn("a", 0.0, None, model="GPT-4"), turn("b", 1.0, None)], "m", Slo(), models={"GPT-4": "m2"}
    )
    assert (first.job.request.model, second.job.request.model) == ("m2", "m")
