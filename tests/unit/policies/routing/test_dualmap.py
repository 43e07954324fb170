"""DualMap: affinity to one of two homes, as long as that is soon enough."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.event import Arrived, Reported
from millrace.core.fleet import Hold, ReplicaView, Route, Sent
from millrace.core.request import Request, Slo
from millrace.policies.routing.dualmap import Policy
from millrace.testing import fakes

BLOCKS = tuple(range(1, 9))
SPEED: dict[str, Any] = {"prefill_tokens_per_s": 1000.0, "decode_step_s": 0.01}


def asked(id: str = "q", **fields: Any) -> Request:
    return fakes.request(id, **{"prompt_tokens": 5000, "blocks": BLOCKS, "block_tokens": 512, **fields})


def homes(**load: dict[str, Any]) -> tuple[ReplicaView, ReplicaView]:
    """Return two replicas; the first holds the beginning of the prompt."""
    held = (asked("before", blocks=BLOCKS[:8], prompt_tokens=4096),)
    a = fakes.replica("a", sent=held, **SPEED, **load.get("a", {}))
    return a, fakes.replica("b", **SPEED, **load.get("b", {}))


def queued(tokens: int) -> dict[str, Any]:
    return {"waiting": 1, "queued_tokens": tokens}


def test_the_home_that_has_the_prompt_takes_it_while_that_is_soon_enough() -> None:
    assert Policy().route(asked(), fakes.fleet(*homes(a=queued(4000)))) == Route("a")


def test_it_goes_to_the_other_one_if_the_objective_would_be_missed() -> None:
    # a holds 4,096 tokens and would answer after 6 s, b holds none and would after 5.
    fleet = fakes.fleet(*homes(a=queued(5096)))
    assert Policy().route(asked(), fleet) == Route("b")
    assert Policy(slo_ttft_s=6.5).route(asked(), fleet) == Route("a")
    assert Policy().route(asked(slo=Slo(ttft_s=6.5)), fleet) == Route("a")
    assert Policy(slo_ttft_s=9.0).route(asked(slo=Slo(ttft_s=1.0)), fleet) == Route("b")


def test_if_both_would_miss_it_the_sooner_one_takes_it() -> None:
    assert Policy().route(asked(), fakes.fleet(*homes(a=queued(9000), b=queued(9000)))) == Route("a")


def test_of_homes_that_hold_as_much_the_sooner_one_takes_it() -> None:
    new = asked(blocks=(50, 51, 52))
    for name, other in (("a", "b"), ("b", "a")):
        assert Policy().route(new, fakes.fleet(*homes(**{name: queued(100)}))) == Route(other)
    plain = asked(blocks=())
    assert Policy().route(plain, fakes.fleet(*homes(a=queued(100)))) == Route("b")


def test_equal_homes_are_drawn_by_request() -> None:
    plain = [asked(f"q{n}", blocks=()) for n in range(20)]
    chosen = {str(Policy().route(one, fakes.fleet(*homes()))) for one in plain}
    assert len(chosen) == 2


def test_all_that_begins_alike_lives_in_two_places() -> None:
    fleet = fakes.fleet(*(fakes.replica(f"r{n}", **SPEED) for n in range(8)))
    for start in range(10):
        routes = [Policy().route(asked(f"q{n}", blocks=(start, 100 + start, n)), fleet) for n in range(20)]
        assert len({str(route) for route in routes}) == 2


def test_a_hot_beginning_gets_more_homes() -> None:
    policy = Policy(window=40)
    fleet = fakes.fleet(*(fakes.replica(f"r{n}", **SPEED) for n in range(8)))
    for replica in fleet.replicas:
        policy.note(Reported(0.0, replica.id, "ready", replica.spec))
    alike = [asked(f"q{n}", blocks=(1, 2, 100 + n)) for n in range(40)]
    for one in alike:
        policy.note(Arrived(0.0, one))
    assert len({str(policy.route(one, fleet)) for one in alike}) > 5


def test_who_waits_is_known_prompt_by_prompt() -> None:
    a, b = homes(a=queued(4000))
    a.spec = b.spec = fakes.replica("x", attended_s=1e-7, **SPEED).spec
    policy, fleet = Policy(), fakes.fleet(a, b)
    assert policy.route(asked(), fleet) == Route("a")
    policy.note(Sent(0.0, asked("long", blocks=(), prompt_tokens=40_000), "a", queued_tokens=4000))
    assert policy.route(asked(), fleet) == Route("b")


def test_with_one_replica_there_is_no_choice_and_with_none_nothing_to_do() -> None:
    a, b = homes(a=queued(9999))
    b.phase = "draining"
    assert Policy().route(asked(), fakes.fleet(a, b)) == Route("a")
    assert Policy().route(asked(), fakes.fleet(b)) == Hold("no ready replica")


def test_replicas_on_which_it_failed_are_passed_over() -> None:
    a, b = homes()
    assert Policy().route(asked(), fakes.fleet(a, b, avoid=frozenset("a"))) == Route("b")


def test_an_objective_must_be_positive() -> None:
    with pytest.raises(ValueError, match="slo_ttft_s is 0"):
        Policy(slo_ttft_s=0)
    with pytest.raises(ValueError, match="assumed_tokens_per_s"):
        Policy(assumed_tokens_per_s=0)
