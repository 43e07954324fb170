"""llm-d's scorers: each from 0 to 1, weighted and summed up."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.event import Started
from millrace.core.fleet import Hold, ReplicaView, Route, Sent
from millrace.core.replica import Limits, Report
from millrace.core.request import Request
from millrace.policies.routing import llmd_scores
from millrace.policies.routing.llmd_scores import WEIGHTS, Policy
from millrace.testing import fakes

BLOCKS = tuple(range(10))
ASKED = fakes.request(prompt_tokens=170, blocks=BLOCKS)


def _replica(id: str, *, queue: int = 0, use: float = 0.0, matched: int = 0, **fields: Any) -> ReplicaView:
    """A replica with 1000 tokens of memory, by what it reports and the blocks that it has cached."""
    sent = (fakes.request("sent", blocks=BLOCKS[:matched]),) if matched else ()
    report = Report(now_s=0.0, waiting=queue, kv_free_tokens=round(1000 * (1 - use)))
    limits = Limits(kv_blocks=100, block_tokens=10, adapters=fields.pop("slots", None))
    return fakes.replica(id, **{"sent": sent, "report": report, "limits": limits, **fields})


def _only(**weights: Any) -> Policy:
    """A policy of these weights and no others."""
    return Policy(**{**dict.fromkeys(WEIGHTS, 0.0), **weights})


def _scores(policy: Policy, *replicas: ReplicaView, request: Request = ASKED) -> list[float]:
    return policy.scores(request, replicas, 0.0)


def test_the_default_profile_weighs_queue_memory_and_prefix_by_two_two_and_three() -> None:
    a, b = _replica("a", use=0.5), _replica("b", queue=4, use=0.1, matched=10)
    assert _scores(Policy(), a, b) == pytest.approx([2 * 1 + 2 * 0.5, 2 * 0.9 + 3])
    assert Policy().route(ASKED, fakes.fleet(a, b)) == Route("b")


def test_queues_count_in_proportion_between_the_shortest_and_the_longest() -> None:
    replicas = [_replica("a", queue=2), _replica("b", queue=4), _replica("c", queue=10)]
    assert _scores(_only(queue=1.0), *replicas) == [1.0, 0.75, 0.0]
    assert _scores(_only(queue=1.0), *replicas[:1]) == [1.0]


def test_memory_that_is_more_than_full_scores_nothing() -> None:
    assert _scores(_only(kv_cache=1.0), _replica("a", use=0.75), _replica("b", queued_tokens=1100)) == [
        0.25,
        0,
    ]


def test_running_requests_count_as_queues_do() -> None:
    replicas = [_replica("a", running=1), _replica("b", running=2), _replica("c", running=3)]
    assert _scores(_only(running_requests=1.0), *replicas) == [1.0, 0.5, 0.0]


def test_load_is_a_half_at_an_empty_queue_and_nothing_at_128() -> None:
    replicas = [_replica("a"), _replica("b", queue=64), _replica("c", queue=200)]
    assert _scores(_only(load_aware=1.0), *replicas) == [0.5, 0.25, 0.0]


def test_tokens_in_flight_count_up_to_four_million() -> None:
    replicas = [
        _replica("a", queued_tokens=1 << 20, context_tokens=1 << 20),
        _replica("b", coming_tokens=1 << 23),
    ]
    assert _scores(_only(token_load=1.0), *replicas) == [0.5, 0.0]


def test_active_requests_count_by_the_most_and_idle_ones_are_best() -> None:
    replicas = [_replica("a"), _replica("b", waiting=1, running=2), _replica("c", running=4)]
    assert _scores(_only(active_request=1.0), *replicas) == [1.0, 0.25, 0.0]
    assert _scores(_only(active_request=1.0), replicas[0]) == [1.0]


def test_an_adapter_is_best_where_it_is_and_next_where_there_is_room() -> None:
    there, room = _replica("there", slots=1, adapters=("x",)), _replica("room", slots=2, adapters=("y",))
    taken, unlimited = _replica("taken", slots=1, adapters=("y",)), _replica("unlimited", adapters=("y",))
    unknown = fakes.replica("unknown")
    request = fakes.request(adapter="x")
    scores = _scores(_only(lora_affinity=1.0), there, room, taken, unlimited, unknown, request=request)
    assert scores == [1.0, 0.8, 0.0, 0.8, 0.0]
    assert _scores(_only(lora_affinity=1.0), there, room) == [0.0, 0.0]


def test_a_context_is_best_that_fits_closely_with_room_to_spare() -> None:
    fits, wide, short = (fakes.replica("r", limits=Limits(context_tokens=n)) for n in (10_000, 90_000, 1000))
    request = fakes.request(prompt_tokens=5000)
    scores = _scores(_only(context_length_aware=1.0), fits, wide, short, fakes.replica("x"), request=request)
    expected = [0.3 + 0.7 * (0.35 + 0.15), 0.3 + 0.7 * (0.07 + 0.3 * 85 / 90), 0.3 / 5, 0.5]
    assert scores == pytest.approx(expected)


def test_a_session_scores_where_its_last_request_went() -> None:
    policy = _only(session_affinity=1.0)
    replicas = [_replica("a"), _replica("b")]
    turn = fakes.request(session="s")
    assert _scores(policy, *replicas, request=turn) == [0.0, 0.0]
    for name, expected in (("b", [0.0, 1.0]), ("a", [1.0, 0.0])):
        policy.note(Sent(0.0, turn, name))
        policy.note(Started(0.0, turn.id))
        assert _scores(policy, *replicas, request=turn) == expected
    assert _scores(policy, *replicas) == [0.0, 0.0]


def test_a_prompt_that_nobody_began_goes_where_none_such_went_for_longest() -> None:
    policy = _only(no_hit_lru=1.0)
    replicas = [_replica(name) for name in "abc"]
    assert _scores(policy, *replicas) == [1.0, 0.5, 0.0]
    for n, name in enumerate("ab"):
        policy.note(Sent(0.0, fakes.request(f"q{n}", blocks=(100 + n,)), name))
    policy.note(Sent(0.0, fakes.request("q9", blocks=(101, 7)), "a"))  # its prefix was begun before
    assert _scores(policy, *replicas) == [0.5, 0.0, 1.0]
    policy.note(Sent(0.0, fakes.request("short"), "a"))
    assert _scores(policy, *replicas) == [0.0, 0.5, 1.0]
    assert _scores(policy, *replicas[:1]) == [0.5]
    assert _scores(policy, _replica("a", matched=1), *replicas[1:]) == [0.5, 0.5, 0.5]


def test_what_is_remembered_is_bounded() -> None:
    policy = _only(session_affinity=1.0)
    for n in range(llmd_scores.MOST_REMEMBERED + 1):
        policy.note(Sent(0.0, fakes.request(session=f"s{n}"), "a"))
    scores = [_scores(policy, _replica("a"), request=fakes.request(session=f"s{n}")) for n in (0, 1)]
    assert scores == [[0.0], [1.0]]


def test_a_long_prefix_counts_by_its_square_as_far_as_wanted() -> None:
    long = fakes.request(prompt_tokens=16384, blocks=tuple(range(1024)))
    sent = fakes.request("sent", prompt_tokens=4096, blocks=tuple(range(256)))
    replica = fakes.replica("a", sent=(sent,))
    scores = [_scores(_only(prefix=1.0, long_prefix=w), replica, request=long)[0] for w in (0.0, 0.5, 1.0)]
    assert scores == [0.25, 0.25, 0.25]  # a quarter of the prompt, and half of 8192 tokens squared


def _filtered(*replicas: ReplicaView, **settings: Any) -> set[str]:
    policy = _only(prefix_filter=True, **settings)
    decisions = [
        policy.route(fakes.request(f"q{n}", prompt_tokens=170, blocks=BLOCKS), fakes.fleet(*replicas))
        for n in range(40)
    ]
    return {decision.replica for decision in decisions if isinstance(decision, Route)}


def test_the_filter_keeps_those_with_most_of_the_prompt() -> None:
    replicas = [_replica("a", matched=8), _replica("b", matched=7), _replica("c", matched=9)]
    assert _filtered(*replicas) == {"a", "c"}
    assert _filtered(*replicas, sticky_share=0.9) == {"c"}
    assert _filtered(replicas[1], _replica("d")) == {"b", "d"}
    assert _filtered(replicas[0], replicas[2]) == {"a", "c"}


def test_the_filter_lets_go_where_another_is_sooner_by_far() -> None:
    other = _replica("b", context_tokens=15928)
    assert _filtered(_replica("a", matched=9, queued_tokens=19 * 15928), other) == {"a"}
    assert _filtered(_replica("a", matched=9, queued_tokens=19 * 15928 + 1), other) == {"a", "b"}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="queue is -1"):
        Policy(queue=-1)
    with pytest.raises(ValueError, match=r"sticky_share is 1\.5"):
        Policy(sticky_share=1.5)
    with pytest.raises(ValueError, match="prefill_tokens_per_s is 0"):
        Policy(prefill_tokens_per_s=0)
