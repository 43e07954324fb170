"""Prefix affinity: prompts that begin alike meet on one replica, unless it carries more than its share."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.draw import draw
from millrace.core.fleet import FleetView, Hold, Route
from millrace.core.request import Request
from millrace.policies import load
from millrace.policies.routing.prefix_affinity import Policy
from millrace.testing import fakes


def _fleet(*in_flight: int) -> FleetView:
    return fakes.fleet(*(fakes.replica(f"r{n}", waiting=load) for n, load in enumerate(in_flight)))


def _prompt(prefix: int, id: str = "q", blocks: int = 20) -> Request:
    """A prompt whose first 8 blocks (the usual 128 tokens) belong to its prefix, the rest to itself."""
    shared = tuple(prefix * 100 + n for n in range(min(8, blocks)))
    return fakes.request(id, blocks=shared + tuple(draw(id, n) for n in range(blocks - 8)))


def _home(request: Request, fleet: FleetView, policy: Policy | None = None) -> str:
    decision = (policy or Policy()).route(request, fleet)
    assert isinstance(decision, Route)
    return decision.replica


def test_prompts_that_begin_alike_go_to_the_same_replica() -> None:
    fleet = _fleet(0, 0, 0, 0)
    for prefix in range(20):
        assert len({_home(_prompt(prefix, f"q{n}"), fleet) for n in range(10)}) == 1


def test_prefixes_are_spread_over_all_replicas() -> None:
    homes = [_home(_prompt(prefix), _fleet(0, 0, 0, 0)) for prefix in range(400)]
    assert all(70 < homes.count(f"r{n}") < 130 for n in range(4))


def test_a_replica_that_joins_takes_only_its_share_and_moves_nobody_else() -> None:
    before = [_home(_prompt(prefix), _fleet(0, 0, 0, 0)) for prefix in range(500)]
    after = [_home(_prompt(prefix), _fleet(0, 0, 0, 0, 0)) for prefix in range(500)]
    moved = [now for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {"r4"}
    assert 70 < len(moved) < 130  # a fifth of 500


def test_a_replica_that_leaves_moves_only_what_it_had() -> None:
    before = [_home(_prompt(prefix), _fleet(0, 0, 0)) for prefix in range(300)]
    after = [_home(_prompt(prefix), _fleet(0, 0)) for prefix in range(300)]
    assert all(was == now for was, now in zip(before, after, strict=True) if was != "r2")
    assert set(after) == {"r0", "r1"}


def test_a_home_that_carries_more_than_its_share_is_passed_over() -> None:
    fleet = _fleet(0, 0, 0)
    home = _home(_prompt(1), fleet)
    next(r for r in fleet.replicas if r.id == home).waiting = 9
    away = {_home(_prompt(1, f"q{n}"), fleet) for n in range(10)}
    assert len(away) == 1
    assert away != {home}


@given(
    in_flight=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    prefix=st.integers(0, 50),
    load_factor=st.sampled_from([1.0, 1.25, 2.0]),
)
def test_nobody_is_loaded_above_the_factor_times_the_mean(
    in_flight: list[int], prefix: int, load_factor: float
) -> None:
    fleet = _fleet(*in_flight)
    home = _home(_prompt(prefix), fleet, Policy(load_factor=load_factor))
    chosen = next(r for r in fleet.replicas if r.id == home)
    assert chosen.in_flight + 1 <= ceil(load_factor * (sum(in_flight) + 1) / len(in_flight))


@given(in_flight=st.lists(st.integers(0, 9), min_size=1, max_size=8), prefix=st.integers(0, 50))
def test_of_those_below_their_share_the_one_that_draws_the_highest_number_is_home(
    in_flight: list[int], prefix: int
) -> None:
    fleet, request = _fleet(*in_flight), _prompt(prefix)
    share = ceil(1.25 * (sum(in_flight) + 1) / len(in_flight))
    below = [r.id for r in fleet.replicas if r.in_flight < share]
    draws = {draw(Policy().key(request), name, 0): name for name in below}
    assert _home(request, fleet) == draws[max(draws)]


def test_the_bound_holds_while_a_single_prefix_fills_the_fleet() -> None:
    fleet = _fleet(0, 0, 0, 0)
    for n in range(1, 101):
        home = _home(_prompt(1, f"q{n}"), fleet)
        next(r for r in fleet.replicas if r.id == home).waiting += 1
        assert max(r.in_flight for r in fleet.replicas) <= ceil(1.25 * n / 4)


def test_prompts_without_blocks_are_spread_by_their_own_names() -> None:
    homes = [_home(fakes.request(f"q{n}"), _fleet(0, 0, 0, 0)) for n in range(400)]
    assert all(70 < homes.count(f"r{n}") < 130 for n in range(4))


def test_a_prompt_shorter_than_the_key_is_named_by_all_its_blocks() -> None:
    assert Policy().key(_prompt(3, blocks=5)) == 304
    assert Policy().key(_prompt(3, blocks=20)) == 307


def test_the_key_is_counted_in_tokens_whatever_the_block_size() -> None:
    request = fakes.request(blocks=tuple(range(10)), block_tokens=64)
    assert [Policy(key_tokens=n).key(request) for n in (1, 64, 65, 128, 9999)] == [0, 0, 1, 1, 9]


def test_another_seed_gives_other_homes() -> None:
    fleet = _fleet(0, 0, 0, 0)
    homes = [[_home(_prompt(n), fleet, Policy(seed=seed)) for n in range(40)] for seed in (0, 1)]
    assert homes[0] != homes[1]


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(fakes.request(), fakes.fleet()) == Hold("no ready replica")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("load_factor=0.9", r"load_factor is 0\.9; below 1 no replica could take its share"),
        ("load_factor=1e999", "load_factor is inf"),
        ("key_tokens=0", "key_tokens is 0; at least 1 token must name a prefix"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("routing", f"prefix_affinity({settings})")
