"""What the demo reads out of step logs and answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.bench.demo.calibrate import Logged, overhead_s, read_steps, timed
from tests.unit.bench.report.runs import outcome


def _step(ended_ms: float, took_ms: float) -> Logged:
    """The only step of a request."""
    return Logged(prefills=1, prefill_tokens=8, emits=1, seconds=took_ms / 1e3, ended_s=ended_ms / 1e3)


def test_a_step_log_is_read_and_what_it_says_besides_is_ignored(tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"
    log.write_text('{"decodes": 2, "emits": 2, "seconds": 0.004, "ended_s": 7.5, "cpu_s": 3.0}\n')
    (step,) = read_steps(log)
    assert (step.decodes, step.seconds, step.ended_s) == (2, 0.004, 7.5)
    assert step.began_s == pytest.approx(7.496)


def test_a_step_lasts_from_the_end_of_the_one_before_unless_there_was_a_pause() -> None:
    found = timed([[_step(105, 5), _step(111, 5), _step(205, 5)]])
    assert [one.seconds for one in found] == pytest.approx([0.005, 0.006, 0.005])


def test_a_silence_that_a_sequence_waits_through_is_part_of_the_step() -> None:
    decode = Logged(decodes=1, emits=1, seconds=0.005, ended_s=0.113)
    chunk = Logged(prefills=1, prefill_tokens=8, emits=0, seconds=0.005, ended_s=0.205)
    found = timed([[_step(105, 5), decode, chunk, _step(213, 5)]])
    assert [one.seconds for one in found] == pytest.approx([0.005, 0.008, 0.005, 0.008])


def test_the_busy_engines_are_counted_when_a_step_begins() -> None:
    own = [_step(104, 4), _step(108, 4), _step(154, 4), _step(254, 4)]
    other = [_step(103, 2), _step(112, 8.5), _step(156, 10)]
    found = timed([own, other, []])
    # At 100 ms the other engine is idle, at 104 it is under way, at 150 too, at 250 there is nothing more.
    assert [one.busy for one in found[:4]] == [1, 2, 2, 1]


def test_an_engine_between_two_steps_is_busy() -> None:
    found = timed([[_step(114, 4)], [_step(109.5, 9), _step(120, 9.5)]])
    assert found[0].busy == 2


def test_overhead_is_what_a_simulation_without_it_is_short_of() -> None:
    live = [outcome(n, first_token_s=n / 2 + 0.1 + n / 1000) for n in range(11)]
    simulated = [outcome(n, first_token_s=n / 2 + 0.07) for n in range(11)]
    assert overhead_s(live, simulated) == pytest.approx(0.035)
    assert overhead_s(simulated, live) == 0


def test_requests_that_shared_their_engine_say_nothing_of_overhead() -> None:
    at_once = {"scheduled_s": 0.0, "replica": "engine-0"}
    live = [outcome(n, first_token_s=0.2, finished_s=0.5, **at_once) for n in range(2)]
    live.append(outcome(2, scheduled_s=0.0, first_token_s=0.11, replica="engine-1"))
    simulated = [outcome(n, scheduled_s=0.0, first_token_s=0.1) for n in range(3)]
    assert overhead_s(live, simulated) == pytest.approx(0.01)
    assert overhead_s(live[:2], simulated[:2]) == 0
