"""A prompt computed on one replica and answered on another, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.cost import StepShape
from millrace.core.event import Action, Arrived, Cancelled, Event, Prefilled
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec, Role
from millrace.core.request import Request
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Surroundings, parse_faults, servers, simulate
from millrace.simulate.lanes import Stretch
from millrace.simulate.links import Link, Transfer

KV_BYTES = 10.0
LINK = Link(bytes_per_s=1000.0, latency_s=0.5)  # a prompt of 100 tokens takes 1.5 s


class Steady(Struct, frozen=True):
    """A second for every step."""

    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def step_j(self, shape: StepShape) -> float:
        return 1.0

    def own_s(self, shape: StepShape) -> float:
        return 1.0

    def experts_s(self, tokens: int) -> float:
        return 0.0

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        return 1.0


class Leaving(Controller):
    """A controller whose clients leave when this has happened to their requests."""

    upon: type[Event] = Prefilled

    def on(self, event: Event) -> list[Action]:
        actions = super().on(event)
        if isinstance(event, self.upon):
            name = event.request.id if isinstance(event, Arrived) else getattr(event, "request_id", "")
            actions += super().on(Cancelled(event.now_s, name))
        return actions


def job(name: str, t_s: float = 0.0, *, prompt: int = 100, output: int = 3, blocks: int = 0) -> Job:
    asked = Request(id=name, model="m", prompt_tokens=prompt, max_tokens=output)
    names = tuple(range(1, blocks + 1))
    return Job(t_s=t_s, request=asked, prompt_tokens=prompt, output_tokens=output, blocks=names)


def fleet_of(*roles: Role, limits: dict[str, Limits] | None = None, **fields: Any) -> list[ServerSpec]:
    made = []
    for n, role in enumerate(roles):
        limit = (limits or {}).get(f"r{n}", Limits())
        spec = ReplicaSpec(models=("m",), limits=limit, role=role)
        common = {"cost": Steady(), "kv_bytes_per_token": KV_BYTES}
        made.append(ServerSpec(**{"id": f"r{n}", "spec": spec, **common, **fields}))
    return made


def play(
    jobs: list[Job],
    fleet: list[ServerSpec],
    *,
    script: str = "",
    below: int = 0,
    kind: type[Controller] = Controller,
    way_s: float = 0.0,
    **how: Any,
) -> tuple[dict[str, Outcome], list[tuple[str, float, float]]]:
    """Return the outcomes, and each transfer's bytes with its beginning and end."""
    controller = kind(
        load("routing", f"disaggregated(local_below_tokens={below})"),
        load("queueing", "fcfs"),
        ControlSettings(max_hold_s=5.0),
    )
    carried: list[tuple[str, float, float]] = []

    def note(one: Transfer, now_s: float) -> None:
        assert one.began_s is not None
        carried.append((f"{one.source}>{one.target} {one.bytes:g}", one.began_s, now_s))

    found = simulate(
        jobs,
        fleet,
        controller,
        load("batching", "split_fuse"),
        surroundings=Surroundings(
            link=LINK, faults=parse_faults(script), to_engine_s=way_s, from_engine_s=way_s
        ),
        transfers=note,
        **how,
    )
    for view in controller.state.replicas.values():
        assert (view.waiting, view.running, view.queued_tokens, view.coming_tokens) == (0, 0, 0, 0)
    return {outcome.id: outcome for outcome in found.outcomes}, carried


def test_the_first_token_comes_after_the_prompt_the_transfer_and_one_step() -> None:
    found, carried = play([job("q")], fleet_of("prefill", "decode"))
    assert carried == [("r0>r1 1000", 1.0, 2.5)]
    got = found["q"]
    assert (got.first_token_s, got.finished_s, got.output_tokens) == (3.5, 5.5, 3)
    assert (got.prefilled_on, got.replica, got.status) == ("r0", "r1", "completed")


def test_the_way_is_gone_four_times_before_the_first_token_is_heard() -> None:
    found, _ = play([job("q")], fleet_of("prefill", "decode"), way_s=0.25)
    assert found["q"].first_token_s == 3.5 + 4 * 0.25


def test_a_short_prompt_is_computed_where_it_is_answered() -> None:
    found, carried = play([job("q")], fleet_of("prefill", "decode"), below=101)
    assert not carried
    assert (found["q"].first_token_s, found["q"].prefilled_on) == (1.0, None)


def test_a_link_carries_one_cache_after_the_other() -> None:
    _, carried = play([job("a"), job("b")], fleet_of("prefill", "decode"))
    assert carried == [("r0>r1 1000", 1.0, 2.5), ("r0>r1 1000", 2.5, 4.0)]


def test_what_the_prefix_cache_holds_is_not_carried_again() -> None:
    jobs = [job("a", blocks=6), job("b", 20.0, blocks=6)]
    found, carried = play(jobs, fleet_of("prefill", "decode"))
    assert [one[0] for one in carried] == ["r0>r1 1000", "r0>r1 40"]
    assert found["b"].cached_tokens == 96


def test_a_cache_waits_for_blocks_and_the_prompt_stays_until_it_has_come() -> None:
    small = {"r1": Limits(kv_blocks=8)}  # a prompt takes 7
    found, carried = play([job("a"), job("b")], fleet_of("prefill", "decode", limits=small))
    assert found["a"].finished_s == 5.5
    assert carried[1] == ("r0>r1 1000", 5.5, 7.0)
    tiny = {"r0": Limits(kv_blocks=8), "r1": Limits()}
    _, carried = play([job("a"), job("b")], fleet_of("prefill", "decode", limits=tiny))
    # The second prompt is there at 3.5, but a step of the other replica has just begun.
    assert carried == [("r0>r1 1000", 1.0, 2.5), ("r0>r1 1000", 4.5, 6.0)]


def test_a_cache_that_has_come_waits_for_a_seat() -> None:
    one = {"r1": Limits(sequences=1)}
    found, _ = play([job("a", output=6), job("b")], fleet_of("prefill", "decode", limits=one))
    assert found["a"].finished_s == 8.5
    assert found["b"].first_token_s == 9.5


@pytest.mark.parametrize(
    ("script", "first_token_s"),
    [
        ("kill r0 at 500ms", 0.5 + 3.5),  # while it computes the prompt
        ("kill r0 at 2s", 2.0 + 3.5),  # while the cache is on its way
        ("kill r2 at 500ms", 1.0 + 3.5),  # who answers is found dead when the prompt is there
        ("kill r2 at 2s", 2.0 + 3.5),
    ],
)
def test_whoever_dies_another_one_takes_its_place(script: str, first_token_s: float) -> None:
    fleet = fleet_of("prefill", "prefill", "decode", "decode")
    controller_picks = {"r0", "r1"}, {"r2", "r3"}
    found, _ = play([job("q2")], fleet, script=script)
    if (found["q2"].prefilled_on, found["q2"].replica) != ("r0", "r2"):
        assert found["q2"].prefilled_on in controller_picks[0]
        assert found["q2"].replica in controller_picks[1]
    assert found["q2"].status == "completed"
    assert found["q2"].first_token_s in (3.5, first_token_s)


def test_who_is_dead_when_the_prompt_arrives_costs_an_attempt() -> None:
    fleet = fleet_of("prefill", "decode")
    found, carried = play([job("q", 1.0)], fleet, script="kill r0 at 1.1s; start r0 at 3s", way_s=0.25)
    assert (found["q"].status, found["q"].prefilled_on) == ("completed", None)
    assert not carried


def test_whoever_drains_hands_over_what_it_has() -> None:
    script = "drain r0 at 500ms; drain r1 at 600ms"
    found, carried = play([job("q")], fleet_of("prefill", "decode"), script=script)
    assert (found["q"].status, len(carried)) == ("completed", 1)


@pytest.mark.parametrize("upon", [Arrived, Prefilled])
@pytest.mark.parametrize("way_s", [0.0, 0.25])
def test_whoever_leaves_leaves_nothing_behind(upon: type[Event], way_s: float) -> None:
    class Impatient(Leaving):
        pass

    Impatient.upon = upon
    found, carried = play([job("q")], fleet_of("prefill", "decode"), kind=Impatient, way_s=way_s)
    assert found["q"].status == "cancelled"
    assert not carried


def test_a_request_that_fits_nowhere_fails_once() -> None:
    short = Limits(context_tokens=101)
    for limits in ({"r0": short, "r1": short}, {"r1": short}):
        found, _ = play([job("q")], fleet_of("prefill", "decode", limits=limits))
        assert found["q"].status == "failed"
        assert "shorten the prompt" in str(found["q"].error)


def test_a_fleet_in_which_nobody_prefills_for_others_knows_no_handovers() -> None:
    found, carried = play([job("q")], fleet_of("both", "decode"))
    assert (found["q"].first_token_s, carried) == (1.0, [])


def test_lanes_and_joules_are_told_of_both_replicas() -> None:
    runs: list[Stretch] = []
    fleet = fleet_of("prefill", "decode", idle_w=1.0)
    found, _ = play([job("q")], fleet, runs=runs.append, metered=True)
    assert [(run.replica, run.start_s, run.end_s) for run in runs] == [
        ("r0", 0.0, 1.0),
        ("r1", 2.5, 3.5),
        ("r1", 3.5, 5.5),
    ]
    assert found["q"].status == "completed"


def test_a_cache_of_unknown_size_cannot_be_carried() -> None:
    with pytest.raises(ValueError, match="say its kv_bytes_per_token"):
        play([job("q")], fleet_of("prefill", "decode", kv_bytes_per_token=None))


def test_ranks_compute_prompts_for_the_ranks_of_others() -> None:
    alone = play([job("q")], fleet_of("prefill", "decode"))
    for ranks in ((2, 2), (1, 2), (2, 1)):
        pair = zip(fleet_of("prefill", "decode"), ranks, strict=True)
        assert play([job("q")], [replace(one, ranks=n) for one, n in pair]) == alone


def test_each_rank_keeps_its_own_cache_of_what_is_handed_over() -> None:
    jobs = [job("a", blocks=6), job("b", blocks=6), job("c", 20.0, blocks=6)]
    fleet = fleet_of("prefill", "decode", ranks=2)
    found, carried = play(jobs, fleet)
    assert [one.status for one in found.values()] == ["completed"] * 3
    # a and b are at different ranks, which know nothing of each other's blocks; c finds six with one of them.
    assert [what for what, _, _ in carried] == ["r0>r1 1000", "r0>r1 1000", "r0>r1 40"]


@pytest.mark.parametrize("script", ["kill r0 at 0.5s", "kill r1 at 1.2s", "kill r1 at 3.2s"])
def test_ranks_that_are_lost_in_a_handover_leave_a_request_where_any_loss_does(script: str) -> None:
    jobs = [job("q"), job("r", 10.0)]
    script += "; start r0 at 8s; start r1 at 8s"
    lost = play(jobs, fleet_of("prefill", "decode", ranks=2), script=script)
    assert lost == play(jobs, fleet_of("prefill", "decode"), script=script)
    assert lost[0]["r"].prefilled_on == "r0"


def test_a_client_that_leaves_takes_its_prompt_back_from_the_ranks() -> None:
    found, carried = play([job("q")], fleet_of("prefill", "decode", ranks=2), kind=Leaving)
    assert (found["q"].status, carried) == ("cancelled", [])


def test_somebody_has_to_answer() -> None:
    with pytest.raises(ValueError, match="prompts of m are computed, but nobody answers"):
        play([job("q")], fleet_of("prefill", "prefill"))


def test_a_link_that_carries_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="carries nothing"):
        Link(bytes_per_s=0.0)


def test_roles_are_described_in_a_line() -> None:
    groups = parse_fleet("2x h100 llama-3-8b role=prefill + h100 llama-3-8b role=decode")
    assert [server.spec.role for server in servers(groups)] == ["prefill", "prefill", "decode"]
    assert servers(groups)[0].kv_bytes_per_token == 131072
    with pytest.raises(ValueError, match="role is 'mix'"):
        parse_fleet("h100 llama-3-8b role=mix")
