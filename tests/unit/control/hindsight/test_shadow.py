"""How often a shadow disagrees, and what that would have gained."""

from __future__ import annotations

from millrace.control.hindsight import agreement, compare
from millrace.control.log import replay
from millrace.core.event import Event, Finished, Reported
from millrace.core.fleet import Hold, Route
from millrace.core.replica import ReplicaSpec
from millrace.policies import load
from tests.unit.control.hindsight.logs import Contrary, arrived, joined, log_of
from tests.unit.control.scripted import Insists

BLOCKS = (1, 2, 3, 4, 5, 6)
HISTORY: list[Event] = [
    *joined("a", "b"),
    arrived(1.0, "q1", blocks=BLOCKS),
    arrived(1.0, "q2", blocks=BLOCKS),
    arrived(1.0, "q3"),
]


def test_agreement_is_about_where_a_request_goes() -> None:
    assert agreement(Route("a", "why"), Route("a", "else")) == "same"
    assert agreement(Route("a"), Route("b")) == "other"
    assert agreement(Route("a", prefill_on="p"), Route("a")) == "other"
    assert agreement(Route("a"), Hold("no")) == "none"


def test_a_policy_agrees_with_itself() -> None:
    for name in ("least_work", "millrace", "sglang_cache_aware", "random"):
        _, [found] = compare(log_of(HISTORY, name), {name: load("routing", name)})
        assert (found.same, found.decisions, found.disagreement, found.mean_gain_s) == (3, 3, 0.0, 0.0)
        assert found.gain_s is None


def test_what_a_shadow_gains_is_foreseen_in_seconds_and_in_cached_tokens() -> None:
    insisting = Insists("a")
    told, [found] = compare(log_of(HISTORY, insisting), {"least_work": load("routing", "least_work")})
    assert told.first_difference is None
    assert (found.decisions, found.same + found.other, found.later) == (3, 3, 0)
    assert 0 < found.sooner <= found.other
    [swap] = found.swaps
    assert (swap.sent, swap.shadow, swap.requests) == ("a", "b", found.other)
    assert found.gain_s is not None
    assert found.gain_s.max > 0
    assert found.mean_gain_s == found.gain_s.mean * found.other / 3


def test_the_other_way_round_the_gain_is_a_loss() -> None:
    log = log_of([*joined("a", "b"), arrived(1.0, "q1", blocks=BLOCKS), arrived(9.0, "q2", blocks=BLOCKS)])
    _, [found] = compare(log_of(HISTORY, Insists("a")), {"b": Insists("b")})
    assert found.gained_cached_tokens == -96
    assert found.disagreement == 1.0
    _, [empty] = compare(log[:3], {"b": Insists("b")})
    assert (empty.decisions, empty.disagreement) == (0, 0.0)


def test_a_shadow_that_learns_hears_what_was_really_sent() -> None:
    events = [*joined("a", "b"), arrived(1.0, "q1", session="s"), arrived(1.1, "q2", session="s")]
    _, [found] = compare(log_of(events, Insists("b")), {"contrary": Contrary()})
    assert (found.same, found.none) == (1, 1)


def test_what_was_held_is_no_decision_to_compare() -> None:
    events = [
        Reported(0.0, "a", "starting", ReplicaSpec(models=("m",))),
        arrived(1.0, "q1"),
        Reported(2.0, "a", "ready"),
        Finished(3.0, "q1"),
    ]
    _, [found] = compare(log_of(events), {"random": load("routing", "random")})
    assert found.decisions == 1


def test_shadows_change_nothing() -> None:
    log = log_of(HISTORY)
    told, found = compare(log, {name: load("routing", name) for name in ("random", "millrace")})
    assert told.first_difference is None
    assert [one.policy for one in found] == ["random", "millrace"]
    assert replay(log).first_difference is None
