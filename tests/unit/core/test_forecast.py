"""What is foreseen of a replica's queue: by hand, and from what was told before."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.core.event import Cancelled, Failed, Finished, Moved, Reported, Started, Ticked
from millrace.core.fleet import Sent
from millrace.core.forecast import TRUST_S, Forecast, Line
from millrace.core.replica import Limits, ReplicaSpec
from millrace.testing import fakes

# Steps of 100 tokens or fewer, 1 s each; 1 ms for each pair, and 10 ms for each token of those who run.
SPEC = ReplicaSpec(
    models=("m",),
    limits=Limits(step_tokens=100),
    prefill_tokens_per_s=100.0,
    decode_step_s=1.0,
    attended_s=0.001,
    context_s=0.01,
)


def told(*names: str, spec: ReplicaSpec = SPEC) -> Forecast:
    """A forecast that knows these replicas."""
    made = Forecast(assumed_tokens_per_s=50.0)
    for name in names or ("r",):
        made.note(Reported(0.0, name, "ready", spec))
    return made


def line_of(forecast: Forecast, name: str = "r") -> Line:
    (line,) = forecast.lines([fakes.replica(name)])
    return line


def send(forecast: Forecast, id: str, tokens: int, now_s: float = 0.0, **fields: object) -> None:
    sent = Sent(now_s, fakes.request(id, prompt_tokens=tokens), "r", queued_tokens=tokens)
    forecast.note(sent)


def waits(forecast: Forecast, now_s: float, name: str = "r") -> float:
    line = line_of(forecast, name)
    return max(line.behind_s, line.free_s - now_s)


def test_work_takes_whole_steps_and_what_looking_back_costs() -> None:
    line = line_of(told())
    assert line.seconds(100, 0.0) == 1.0
    assert line.seconds(101, 0.0) == 2.0
    assert line.seconds(100, 500.0) == 1.5


def test_a_part_of_a_step_takes_its_share_but_no_less_than_a_step_that_decodes() -> None:
    decodes = ReplicaSpec(models=("m",), limits=Limits(step_tokens=100), prefill_tokens_per_s=100.0)
    line = line_of(told(spec=replace(decodes, decode_step_s=0.4)))
    assert line.seconds(50, 0.0) == pytest.approx(0.7)
    assert line.seconds(150, 0.0) == pytest.approx(1.7)


def test_running_requests_take_seats_and_make_every_step_longer() -> None:
    forecast = told()
    send(forecast, "q", 50)
    forecast.note(Started(1.0, "q"))
    line = line_of(forecast)
    # What was foreseen (2.25 s) came after 1 s: the rest of the trust is in the spec.
    factor = (0.98 * TRUST_S + 1.0) / (0.98 * TRUST_S + 2.25)
    assert line.seconds(99, 0.0) == pytest.approx(factor * 1.5)
    assert line.seconds(100, 0.0) == pytest.approx(factor * 3.0)
    forecast.note(Finished(2.0, "q"))
    assert line_of(forecast).seconds(100, 0.0) == pytest.approx(factor)


def test_who_comes_waits_for_all_in_front_and_less_as_time_goes_by() -> None:
    forecast = told()
    assert waits(forecast, 0.0) == 0.0
    send(forecast, "q0", 20)  # 1 s and 200 pairs
    send(forecast, "q1", 20)
    assert waits(forecast, 0.0) == pytest.approx(2.4)
    assert waits(forecast, 1.0) == pytest.approx(1.4)
    assert waits(forecast, 9.0) == pytest.approx(1.2)  # however late, the second is still to come
    send(forecast, "q2", 20, now_s=9.0)
    assert waits(forecast, 9.0) == pytest.approx(2.4)


def test_a_request_that_is_just_sent_waits_for_those_in_front() -> None:
    forecast = told()
    sent = Sent(0.5, fakes.request("q1", prompt_tokens=100), "r", queued_tokens=50)
    alone_s = 1.0 + 50 * 75 * 0.001
    assert forecast.ttft_s(sent) == pytest.approx(alone_s)
    send(forecast, "q0", 20)
    assert forecast.ttft_s(sent) == pytest.approx(0.7 + alone_s)
    assert forecast.ttft_s(Sent(0.5, sent.request, "elsewhere")) == 0.0


def test_a_first_token_says_how_far_the_queue_is() -> None:
    forecast = told()
    for number in range(3):
        send(forecast, f"q{number}", 20)
    forecast.note(Started(1.2, "q0"))
    # 40 tokens and 400 pairs are left, in steps that one more request makes longer.
    assert waits(forecast, 1.2) == pytest.approx(line_of(forecast).seconds(40, 400.0))
    forecast.note(Cancelled(1.3, "q1"))
    assert waits(forecast, 1.3) == pytest.approx(line_of(forecast).seconds(20, 200.0))
    forecast.note(Failed(1.4, "q2", "broke"))
    assert waits(forecast, 1.4) == 0.0


def test_who_is_overtaken_stays_first_in_line() -> None:
    forecast = told()
    send(forecast, "q0", 20)
    send(forecast, "q1", 20)
    forecast.note(Started(0.5, "q1"))
    assert waits(forecast, 0.5) == pytest.approx(line_of(forecast).seconds(20, 200.0))


def test_replicas_of_a_kind_are_learned_together() -> None:
    forecast = told("r", "alike")
    send(forecast, "q", 20)
    forecast.note(Started(2.4, "q"))  # twice what was foreseen
    factor = (0.98 * TRUST_S + 2.4) / (0.98 * TRUST_S + 1.2)
    assert line_of(forecast, "alike").seconds(100, 0.0) == pytest.approx(factor)


def test_an_unknown_speed_is_the_slowest_known_one_or_what_is_assumed() -> None:
    unknown = ReplicaSpec(models=("m",), limits=Limits(step_tokens=100))
    assert line_of(told(spec=unknown)).seconds(100, 0.0) == 2.0
    forecast = told("r")
    forecast.note(Reported(0.0, "dark", "ready", unknown))
    assert line_of(forecast, "dark").seconds(100, 0.0) == 1.0


def test_a_replica_of_which_nothing_was_told_is_judged_by_its_view() -> None:
    forecast = Forecast(assumed_tokens_per_s=50.0)
    view = fakes.replica("new", queued_tokens=200, running=1, context_tokens=100, limits=SPEC.limits)
    (line,) = forecast.lines([view])
    assert line.behind_s == pytest.approx(200 / 99 * 2.0)


def test_a_request_that_moves_is_in_one_line_at_a_time() -> None:
    forecast = told("r", "s")
    send(forecast, "q", 20)
    forecast.note(Sent(0.1, fakes.request("q", prompt_tokens=20), "s", moved=True, queued_tokens=20))
    assert waits(forecast, 0.1) == 0.0
    assert waits(forecast, 0.1, "s") == pytest.approx(1.2)
    forecast.note(Started(1.3, "q"))
    busy_s = line_of(forecast, "s").seconds(100, 0.0)
    forecast.note(Moved(2.0, "q", "s"))  # stays
    assert line_of(forecast, "s").seconds(100, 0.0) == busy_s
    forecast.note(Moved(2.0, "q", "r"))
    assert line_of(forecast, "r").seconds(100, 0.0) == pytest.approx(busy_s)
    assert line_of(forecast, "s").seconds(100, 0.0) < busy_s


def test_a_replica_that_was_lost_comes_back_empty() -> None:
    forecast = told()
    send(forecast, "q0", 20)
    forecast.note(Started(1.2, "q0"))
    send(forecast, "q1", 20, now_s=1.2)
    forecast.note(Reported(2.0, "r", "gone"))
    for late in (Started(2.5, "q1"), Finished(2.6, "q0"), Failed(2.7, "q1", "gone")):
        forecast.note(late)
    assert waits(forecast, 3.0) == 0.0
    assert line_of(forecast).seconds(100, 0.0) == pytest.approx(1.0)


def test_a_report_of_a_replica_that_goes_on_changes_nothing() -> None:
    forecast = told()
    send(forecast, "q", 20)
    forecast.note(Reported(1.0, "r", "ready"))
    forecast.note(Reported(1.0, "r", "draining", SPEC))
    assert waits(forecast, 0.0) == pytest.approx(1.2)


def test_what_concerns_nobody_known_changes_nothing() -> None:
    forecast = told()
    for fact in (Ticked(1.0), Started(1.0, "x"), Moved(1.0, "x", "r"), Finished(1.0, "x")):
        forecast.note(fact)
    forecast.note(Sent(1.0, fakes.request("q"), "elsewhere"))
    assert waits(forecast, 1.0) == 0.0


def test_a_second_first_token_is_not_counted() -> None:
    forecast = told()
    send(forecast, "q", 20)
    forecast.note(Started(1.2, "q"))
    busy_s = line_of(forecast).seconds(100, 0.0)
    forecast.note(Started(1.3, "q"))
    assert line_of(forecast).seconds(100, 0.0) == busy_s
