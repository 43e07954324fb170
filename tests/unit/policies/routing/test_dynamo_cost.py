"""Dynamo's cost in blocks: overlap, load, decay, temperature, threshold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from millrace.control.cached import CachedPrefixes
from millrace.control.clock import Clock
from millrace.core.blocks import chain_contents
from millrace.core.event import BlocksStored
from millrace.core.fleet import FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.policies.routing.dynamo_cost import Policy
from millrace.testing import fakes

BLOCKS = tuple(range(10))
ASKED = fakes.request(prompt_tokens=160, blocks=BLOCKS)


def _replica(id: str, *, matched: int = 0, used: int = 0, queued: int = 0, **fields: Any) -> ReplicaView:
    """A replica by the blocks that it has cached, uses for running requests, and has queued."""
    sent = (fakes.request("sent", blocks=BLOCKS[:matched]),) if matched else ()
    return fakes.replica(id, sent=sent, context_tokens=16 * used, queued_tokens=16 * queued, **fields)


def _chosen(policy: Policy, fleet: FleetView, number: int = 400) -> Counter[str]:
    decisions = [policy.route(fakes.request(f"q{n}", prompt_tokens=160), fleet) for n in range(number)]
    return Counter(decision.replica for decision in decisions if isinstance(decision, Route))


def test_blocks_to_compute_and_blocks_in_use_add_up() -> None:
    warm, idle = _replica("warm", matched=8, used=20), _replica("idle", used=5)
    assert Policy().costs(ASKED, [warm, idle]) == [22.0, 15.0]
    assert Policy().route(ASKED, fakes.fleet(warm, idle)) == Route("idle")


def test_queued_prompts_cost_as_prefill_and_as_memory() -> None:
    assert Policy().costs(ASKED, [_replica("a", queued=3)]) == [10 + 3 + 3]
    assert Policy(prefill_scale=2.0).costs(ASKED, [_replica("a", queued=3)]) == [2 * 13 + 3]


def test_prompts_on_the_way_and_requests_in_flight_cost() -> None:
    busy = _replica("a", waiting=1, running=2, coming_tokens=32)
    assert Policy(request_weight=0.5).costs(ASKED, [busy]) == [10 + 2 + 1.5]


def test_credit_decays_with_the_backlog_above_the_least() -> None:
    replicas = [_replica("warm", matched=8, queued=30), _replica("floor", matched=8, queued=10)]
    # 20 blocks more than the least are 2 prompts like this one: the credit is a third.
    assert Policy(credit_decay=1.0).costs(ASKED, replicas) == pytest.approx([40 - 8 / 3 + 30, 20 - 8 + 10])
    assert Policy(overlap_credit=0.5).costs(ASKED, replicas) == [40 - 4 + 30, 20 - 4 + 10]


def test_what_has_to_be_loaded_counts_for_a_part_of_a_cached_block() -> None:
    contents = tuple(range(10))
    prompt = fakes.request(prompt_tokens=160, blocks=chain_contents(contents))
    index = CachedPrefixes(1 << 20, clock=Clock())
    index.note(
        [
            BlocksStored(contents[:4], contents[:4]),
            BlocksStored(contents[:6], (), medium="host"),  # of which two were never on the device
            BlocksStored(contents[2:6], contents[2:6], 1, medium="host"),
            BlocksStored(contents[6:8], contents[6:8], 5, medium="disk"),
        ]
    )
    tiered, floor = _replica("tiered", queued=10), _replica("floor")
    tiered.prefix = index
    assert index.matched_by_medium(prompt) == (64, 32, 32)
    # 10 blocks and 10 queued, less 4, 3/4 of 2 and 1/4 of 2; then those in use.
    assert Policy().costs(prompt, [tiered, floor]) == [20 - 4 - 1.5 - 0.5 + 10, 10]
    assert Policy(credit_decay=1.0).costs(prompt, [tiered, floor]) == [20 - 2 - 1.5 - 0.5 + 10, 10]
    assert Policy(host_credit=0.0, disk_credit=1.0).costs(prompt, [tiered, floor]) == [20 - 4 - 2 + 10, 10]


def test_no_credit_makes_a_prompt_cheaper_than_nothing() -> None:
    assert Policy(overlap_credit=3.0).costs(ASKED, [_replica("a", matched=8, used=2)]) == [2.0]


def test_equals_share_the_work_and_the_same_request_draws_the_same_again() -> None:
    even = fakes.fleet(*(_replica(name, used=3) for name in "abcd"))
    assert all(70 < number < 130 for number in _chosen(Policy(), even).values())
    assert _chosen(Policy(), even) == _chosen(Policy(), even)


def test_at_a_temperature_the_cheapest_is_the_likeliest_by_the_scaled_cost() -> None:
    fleet = fakes.fleet(_replica("a", used=10), _replica("b", used=20), _replica("c", used=30))
    found = _chosen(Policy(temperature=1.0), fleet, number=2000)
    # exp(0), exp(-1/2) and exp(-1) of their sum
    assert [found[name] / 2000 for name in "abc"] == pytest.approx([0.506, 0.307, 0.186], abs=0.04)
    assert set(_chosen(Policy(temperature=0.01), fleet)) == {"a"}


def test_at_a_temperature_equals_are_equally_likely() -> None:
    even = fakes.fleet(*(_replica(name) for name in "abcd"))
    assert all(70 < number < 130 for number in _chosen(Policy(temperature=0.5), even).values())


def test_above_the_threshold_requests_are_held_until_one_replica_is_below() -> None:
    limits = Limits(step_tokens=160)
    above, at = _replica("a", queued=21, limits=limits), _replica("b", queued=20, limits=limits)
    policy = Policy(queue_threshold=2.0)
    assert policy.route(ASKED, fakes.fleet(above)) == Hold("every replica has its fill of prompts queued")
    assert isinstance(policy.route(ASKED, fakes.fleet(above, at)), Route)
    assert Policy().route(ASKED, fakes.fleet(above)) == Route("a")


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature is -1"):
        Policy(temperature=-1)
    with pytest.raises(ValueError, match="queue_threshold is 0"):
        Policy(queue_threshold=0)
