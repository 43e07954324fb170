"""Least attained service: programs that had little lately go first."""

from __future__ import annotations

import pytest

from millrace.control.flight import Flight
from millrace.core.event import Cancelled, Event, Failed, Finished, Ticked
from millrace.core.fleet import Sent
from millrace.core.request import Request
from millrace.policies.queueing.las import FEW_PROGRAMS, Policy
from millrace.testing import fakes


def of(session: str | None, id: str = "q", prompt_tokens: int = 100) -> Request:
    return fakes.request(id, session=session, prompt_tokens=prompt_tokens)


def order(policy: Policy, *held: Request, now_s: float = 0.0, **arrived_s: float) -> list[str]:
    flights = {one.id: Flight(one, 0, "m", 3, arrived_s=arrived_s.get(one.id, now_s)) for one in held}
    return [one.id for one in policy.order(iter(held), fakes.fleet(now_s=now_s, flights=flights))]


def test_service_is_prompts_and_twice_the_answers_and_fades_by_half_a_minute_each() -> None:
    policy = Policy(half_life_s=30.0)
    policy.note(Sent(0.0, of("s"), "r"))
    policy.note(Sent(0.0, of("s"), "r", moved=True))
    policy.note(Finished(0.0, "q", output_tokens=50))
    assert policy.attained_tokens("s", 0.0) == 200
    assert policy.attained_tokens("s", 60.0) == 50
    assert policy.attained_tokens("other", 0.0) == policy.attained_tokens(None, 0.0) == 0


def test_the_program_that_had_least_goes_first_and_equals_in_the_order_of_arrival() -> None:
    policy = Policy()
    for session, tokens in (("much", 1000), ("little", 10)):
        policy.note(Sent(0.0, of(session, prompt_tokens=tokens), "r"))
    held = of("much", "a"), of("little", "b"), of("new", "c"), of(None, "d")
    assert order(policy, *held) == ["c", "d", "b", "a"]
    assert order(policy, held[0]) == ["a"]


def test_waiting_makes_up_for_service() -> None:
    policy = Policy()
    policy.note(Sent(0.0, of("s", prompt_tokens=100), "r"))
    policy.note(Sent(0.0, of("t", prompt_tokens=80), "r"))
    held = of("s", "a"), of("t", "b")
    assert order(policy, *held) == ["b", "a"]
    assert order(policy, *held, now_s=9.0, a=0.0) == ["a", "b"]


def test_answers_that_nobody_counted_or_that_broke_attain_nothing() -> None:
    policy = Policy()
    ends: tuple[Event, ...] = Finished(0.0, "0"), Failed(0.0, "1", "broke"), Cancelled(0.0, "2"), Ticked(0.0)
    for number, end in enumerate(ends):
        policy.note(Sent(0.0, of("s", str(number)), "r"))
        policy.note(end)
    policy.note(Finished(0.0, "unheard-of", output_tokens=9))
    policy.note(Sent(0.0, of(None, "4"), "r"))
    assert policy.attained_tokens("s", 0.0) == 400


def test_programs_of_which_nothing_is_left_are_forgotten() -> None:
    policy = Policy(half_life_s=1.0)
    for number in range(2 * FEW_PROGRAMS):
        policy.note(Sent(float(number), of(f"s{number}"), "r"))
    assert len(policy._attained) <= FEW_PROGRAMS


@pytest.mark.parametrize("setting", ["service_share", "answer_weight", "half_life_s"])
def test_settings_that_make_no_sense_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting} is -1"):
        Policy(**{setting: -1.0})
