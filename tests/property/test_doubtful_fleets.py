"""Whatever is not known of a fleet, no routing policy crashes, herds, or takes the unknown for idle."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.replica import ReplicaSpec
from millrace.policies import names
from tests.property.doubtful import Doubtful, Member

# Policies whose published rule sends a burst to few replicas, and how to ask them not to; and why they do.
HERDS_BY_DESIGN = {
    "least_latency": (
        "least_latency(buffer=0.2)",
        "greedy on means that lag: whoever was thought slow once is not asked again until others have queues",
    ),
    "llumnix_freeness": (
        "llumnix_freeness(whole_queue=True)",
        "of a queue only the head counts; migration is to even out what a burst piles up behind it",
    ),
}
# Policies that give replicas roles by themselves: of two, one answers everything, and the other nothing.
DIVIDES_BY_DESIGN = ("xllm_slo_aware",)
POLICIES = [
    HERDS_BY_DESIGN.get(name, (name, ""))[0] for name in names("routing") if name not in DIVIDES_BY_DESIGN
]

EACH = 24  # requests for each replica that can answer
UNABLE = [Member(phase=phase) for phase in ("draining", "gone", "starting")]
IN_THE_DARK = [Member(), Member(spoke=True), Member(spec=ReplicaSpec(models=("m",)))]
LOADED = Member(speaks=True, others=40)
silent = st.sampled_from(IN_THE_DARK)
loaded = st.builds(Member, speaks=st.just(True), others=st.sampled_from([10, 40]))
paces = st.sampled_from([0.125, 0.005])  # below what the fleet can do, and a burst


def _most(requests: int, replicas: int) -> float:
    """Half again as much as one's share, and what chance may add."""
    return 1.5 * requests / replicas + 8


@pytest.mark.parametrize("routing", POLICIES)
@settings(max_examples=10)
@given(able=st.lists(silent, max_size=6), unable=st.lists(st.sampled_from(UNABLE), max_size=3), every_s=paces)
def test_replicas_of_unknown_load_share_the_work(
    routing: str, able: list[Member], unable: list[Member], every_s: float
) -> None:
    fleet = Doubtful(routing, [*able, *unable])
    fleet.play(EACH * len(able) or 5, every_s=every_s)
    assert fleet.sent.keys() <= set(fleet.able)
    if able:
        assert not fleet.refused
        assert fleet.sent.total() == EACH * len(able)
        assert max(fleet.sent.values()) <= _most(EACH * len(able), len(able))


@pytest.mark.parametrize("routing", POLICIES)
@settings(max_examples=10)
@given(
    dark=st.lists(silent, min_size=1, max_size=3),
    known=st.lists(loaded, min_size=1, max_size=4),
    every_s=paces,
)
def test_silent_replicas_do_not_attract_what_loaded_ones_report_to_be_too_much(
    routing: str, dark: list[Member], known: list[Member], every_s: float
) -> None:
    fleet = Doubtful(routing, [*dark, *known])
    requests = EACH * len(fleet.members)
    fleet.play(requests, every_s=every_s)
    assert fleet.sent.total() == requests
    # Who is known to carry less than others may get more.
    alike = len({member.others for member in known}) == 1
    for name, member in fleet.members.items():
        if alike or not member.speaks:
            assert fleet.sent[name] <= _most(requests, len(fleet.members)), f"{name} of {fleet.sent}"


@pytest.mark.parametrize("routing", POLICIES)
@settings(max_examples=5)
@given(others=st.lists(silent, min_size=2, max_size=5), every_s=paces)
def test_what_a_dead_replica_had_is_shared_by_those_that_survive(
    routing: str, others: list[Member], every_s: float
) -> None:
    fleet = Doubtful(routing, [Member(), *others])
    requests = EACH * len(fleet.members)
    fleet.play(requests, every_s=every_s, dies="r0")
    survivors = [fleet.sent[name] for name in fleet.able]
    assert not fleet.refused
    assert sum(survivors) + fleet.sent["r0"] >= requests
    assert max(survivors) <= _most(requests, len(survivors))


def test_a_policy_that_takes_the_unknown_for_idle_is_noticed() -> None:
    fleet = Doubtful("tests.property.naive:TakesUnknownForIdle", [Member(), *[LOADED] * 3])
    fleet.play(4 * EACH)
    assert fleet.sent["r0"] > 2 * _most(4 * EACH, 4)


def test_a_policy_that_herds_is_noticed() -> None:
    fleet = Doubtful("tests.property.naive:TakesTheFirst", [Member()] * 4)
    fleet.play(4 * EACH)
    assert fleet.sent["r0"] > 2 * _most(4 * EACH, 4)


@pytest.mark.parametrize("name", [*HERDS_BY_DESIGN, *DIVIDES_BY_DESIGN])
def test_a_policy_that_is_let_off_does_herd(name: str) -> None:
    most = []
    for every_s in (0.125, 0.005):
        fleet = Doubtful(name, [Member()] * 8)
        fleet.play(8 * EACH, every_s=every_s)
        most.append(max(fleet.sent.values()))
    assert max(most) > _most(8 * EACH, 8)
