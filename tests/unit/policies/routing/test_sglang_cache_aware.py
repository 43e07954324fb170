"""SGLang's cache-aware router: affinity while the load is balanced, and what it does about a dead worker."""

from __future__ import annotations

import pytest

from millrace.core.event import Failed, Finished, Reported
from millrace.core.fleet import FleetView, Hold, Route, Sent
from millrace.core.replica import Phase, ReplicaSpec
from millrace.core.request import Request
from millrace.policies import load
from millrace.policies.routing.sglang_cache_aware import Policy
from millrace.testing import fakes

PROMPT = tuple(range(100))
BOTH = ReplicaSpec(models=("m",))


def _request(id: str = "q", blocks: tuple[int, ...] = PROMPT) -> Request:
    return fakes.request(id, blocks=blocks)


def _fleet(*loads: int) -> FleetView:
    return fakes.fleet(*(fakes.replica(f"r{n}", waiting=load) for n, load in enumerate(loads)))


def _chosen(policy: Policy, fleet: FleetView, request: Request | None = None) -> str:
    decision = policy.route(request or _request(), fleet)
    assert isinstance(decision, Route)
    return decision.replica


def _knowing(*replicas: str, blocks: tuple[int, ...] = PROMPT, **settings: float) -> Policy:
    """A policy that sent the prompt to these, one after the other."""
    policy = Policy(**settings)  # type: ignore[arg-type]
    for number, name in enumerate(replicas):
        policy.note(Sent(0.0, _request(f"earlier-{number}", blocks), name))
    return policy


def test_golden_loads_of_0_and_65_are_out_of_balance() -> None:
    assert _chosen(_knowing("r1"), _fleet(0, 65)) == "r0"
    assert _chosen(_knowing("r1"), _fleet(0, 64)) == "r1"


def test_golden_loads_of_200_and_265_are_in_balance() -> None:
    assert _chosen(_knowing("r1"), _fleet(200, 265)) == "r1"
    assert _chosen(_knowing("r1"), _fleet(200, 301)) == "r0"


def test_the_defaults_of_the_rust_gateway_balance_earlier() -> None:
    rust = load("routing", "sglang_cache_aware(balance_abs_threshold=32, balance_rel_threshold=1.1)")
    rust.note(Sent(0.0, _request("earlier"), "r1"))
    assert _chosen(rust, _fleet(200, 233)) == "r0"
    assert _chosen(rust, _fleet(400, 433)) == "r1"


def test_a_match_must_be_above_the_threshold() -> None:
    policy = _knowing("r1", blocks=PROMPT[:30])
    assert _chosen(policy, _fleet(0, 1)) == "r0"
    assert _chosen(_knowing("r1", blocks=PROMPT[:31]), _fleet(0, 1)) == "r1"


def test_of_several_holders_the_one_sent_last_serves_whatever_the_load() -> None:
    assert _chosen(_knowing("r0", "r1"), _fleet(0, 9, 0)) == "r1"
    assert _chosen(_knowing("r1", "r0"), _fleet(9, 0, 0)) == "r0"


def test_the_deepest_match_decides_even_if_another_was_sent_less_of_it_later() -> None:
    policy = _knowing("r0")
    policy.note(Sent(1.0, _request("other", PROMPT[:50]), "r1"))
    assert _chosen(policy, _fleet(0, 0)) == "r0"
    assert _chosen(policy, _fleet(0, 0), _request("short", PROMPT[:50])) == "r1"


def test_of_equally_loaded_replicas_the_one_sent_the_fewest_serves() -> None:
    policy = _knowing("r0", "r2", blocks=(7,))
    assert _chosen(policy, _fleet(0, 0, 0)) == "r1"
    policy.note(Reported(1.0, "r0", "gone"))  # and comes back as if it were new
    assert {_chosen(policy, _fleet(0, 0, 0), _request(f"q{n}")) for n in range(20)} == {"r0", "r1"}


def test_what_was_sent_out_of_balance_is_remembered() -> None:
    policy = _knowing("r1")
    policy.note(Sent(1.0, _request("spilled"), _chosen(policy, _fleet(0, 65))))
    assert _chosen(policy, _fleet(0, 0)) == "r0"


def test_a_draining_match_falls_to_the_least_load_and_is_remembered_there() -> None:
    policy, fleet = _knowing("r2"), _fleet(5, 0, 0)
    fleet.replicas[2].phase = "draining"
    assert _chosen(policy, fleet) == "r1"
    policy.note(Sent(1.0, _request("moved on"), "r1"))
    fleet.replicas[2].phase = "ready"
    assert _chosen(policy, fleet) == "r1"


@pytest.mark.parametrize("phase", ["gone", "starting"])
def test_a_replica_that_lost_its_cache_matches_nothing(phase: Phase) -> None:
    policy = _knowing("r1")
    policy.note(Reported(1.0, "r1", phase))
    assert _chosen(policy, _fleet(0, 1)) == "r0"


def test_a_prompt_without_blocks_goes_to_the_least_loaded() -> None:
    assert _chosen(_knowing("r1"), _fleet(0, 1), _request("q", ())) == "r0"


def _published(policy: Policy) -> Policy:
    for name in ("r0", "r1", "r2"):
        policy.note(Reported(0.0, name, "ready", BOTH))
    policy.note(Sent(0.0, _request("earlier"), "r2"))
    policy.note(Finished(0.5, "earlier"))
    return policy


def _loads_after_a_death(policy: Policy) -> list[int]:
    """Send a hundred prompts that r2 held before it died to those that are left; return how many each got."""
    requests = [_request(f"q{n}", tuple(range(1000 * n, 1000 * n + 9))) for n in range(1, 101)]
    _published(policy)
    for request in requests:
        policy.note(Sent(0.5, request, "r2"))
        policy.note(Finished(0.6, request.id))
    policy.note(Reported(1.0, "r2", "gone"))
    fleet = _fleet(0, 0)
    for request in requests:
        name = _chosen(policy, fleet, request)
        policy.note(Sent(2.0, request, name))
        fleet.replicas[int(name[1])].waiting += 1
    return [replica.waiting for replica in fleet.replicas]


def test_published_a_dead_match_herds_everything_onto_the_first_until_the_load_is_out_of_balance() -> None:
    """The comment says least load; the first healthy worker serves, and that is not remembered either."""
    assert _loads_after_a_death(Policy(dead_match_to_first=True)) == [82, 18]
    assert _loads_after_a_death(Policy()) == [50, 50]


def test_published_what_went_to_the_first_is_not_remembered() -> None:
    policy = _published(Policy(dead_match_to_first=True))
    policy.note(Reported(1.0, "r2", "gone"))
    fleet = _fleet(5, 0)
    assert _chosen(policy, fleet) == "r0"
    policy.note(Sent(2.0, _request("astray"), "r0"))
    fleet.replicas[0].phase = "draining"
    policy.note(Reported(3.0, "r0", "draining"))
    assert _chosen(policy, fleet) == "r1"
    policy.note(Sent(4.0, _request("astray too"), "r1"))
    fleet.replicas[0].phase = "ready"
    assert _chosen(policy, fleet) == "r0"  # still the first, not r1


def test_published_a_worker_that_is_back_still_holds_what_it_held() -> None:
    policy = _published(Policy(dead_match_to_first=True))
    fleet = _fleet(0, 0, 9)
    policy.note(Sent(0.6, _request("down"), "r2"))
    policy.note(Failed(1.0, "down", "refused", replica_down=True))
    policy.note(Sent(2.0, _request("astray"), "r0"))
    policy.note(Reported(3.0, "r2", "ready"))
    assert _chosen(policy, fleet) == "r2"


def test_published_what_balances_the_load_is_remembered_while_the_match_is_dead() -> None:
    policy = _published(Policy(dead_match_to_first=True))
    policy.note(Reported(1.0, "r2", "draining"))
    policy.note(Sent(2.0, _request("balancing"), "r1"))
    assert _chosen(policy, _fleet(0, 9)) == "r1"


def test_published_a_miss_is_remembered() -> None:
    policy = _published(Policy(dead_match_to_first=True))
    policy.note(Sent(1.0, _request("new", (7, 8)), "r1"))
    assert _chosen(policy, _fleet(0, 9, 0), _request("q", (7, 8))) == "r1"


def test_each_replica_forgets_what_it_was_sent_first_once_a_minute() -> None:
    policy = Policy(max_tree_tokens=160)
    for n in range(4):
        policy.note(Sent(float(n), _request(f"q{n}", tuple(range(10 * n, 10 * n + 5))), "r1"))
    first, last = _request("first", tuple(range(5))), _request("last", tuple(range(30, 35)))
    assert _chosen(policy, _fleet(0, 1), first) == "r1"
    policy.note(Finished(60.0, "q0"))
    assert _chosen(policy, _fleet(0, 1), first) == "r0"
    assert _chosen(policy, _fleet(0, 1), last) == "r1"


def test_ties_are_drawn_by_request() -> None:
    assert {_chosen(Policy(), _fleet(0, 0, 0), _request(f"q{n}")) for n in range(30)} == {"r0", "r1", "r2"}


def test_it_holds_when_nobody_is_ready() -> None:
    assert Policy().route(_request(), fakes.fleet()) == Hold("no ready replica")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("cache_threshold=1.5", r"cache_threshold is 1\.5; it is a share of a prompt"),
        ("balance_rel_threshold=-1", r"balance_rel_threshold is -1"),
        ("eviction_interval_s=0", r"a period is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("routing", f"sglang_cache_aware({settings})")
