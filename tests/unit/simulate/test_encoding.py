"""Images that are encoded in the way of steps, or apart from them, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from millrace.control import Controller, ControlSettings
from millrace.core.cost.encode import Encoder
from millrace.core.event import Arrived, Event, Prefilled
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits
from millrace.core.request import Media
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Surroundings, parse_faults, simulate
from millrace.simulate.encoding import Seen
from millrace.simulate.links import Link
from tests.unit.simulate.test_handover import Leaving, fleet_of, job

ENCODER = Encoder(tokens_per_s=16.0, bytes_per_token=10.0)  # 32 tokens take 2 s
LINK = Link(bytes_per_s=640.0, latency_s=0.5)  # and 1 s over the link
IMAGE = Media("image", 7, 32)


def seen(name: str, t_s: float = 0.0, *, key: int = 7, blocks: int = 0, prompt: int = 100) -> Job:
    plain = job(name, t_s, blocks=blocks, prompt=prompt)
    request = replace(plain.request, media=(replace(IMAGE, key=key),), blocks=plain.blocks)
    return replace(plain, request=request)


def fleet(*roles: Any, **fields: Any) -> list[ServerSpec]:
    return fleet_of(*roles, encoder=ENCODER, **fields)


def play(
    jobs: list[Job],
    servers: list[ServerSpec],
    *,
    script: str = "",
    kind: type[Controller] = Controller,
    way_s: float = 0.0,
    **how: Any,
) -> tuple[dict[str, Outcome], list[tuple[str, float]]]:
    controller = kind(load("routing", "elasticmm"), load("queueing", "fcfs"), ControlSettings(max_hold_s=5.0))
    carried: list[tuple[str, float]] = []
    found = simulate(
        jobs,
        servers,
        controller,
        load("batching", "split_fuse"),
        surroundings=Surroundings(
            link=LINK, faults=parse_faults(script), to_engine_s=way_s, from_engine_s=way_s
        ),
        transfers=lambda one, now_s: carried.append((f"{one.source}>{one.target} {one.bytes:g}", now_s)),
        **how,
    )
    for view in controller.state.replicas.values():
        assert (view.waiting, view.running, view.queued_tokens, view.coming_tokens) == (0, 0, 0, 0)
    return {outcome.id: outcome for outcome in found.outcomes}, carried


@pytest.mark.parametrize("leaping", [True, False])
def test_a_step_waits_for_the_images_of_its_prompts(leaping: bool) -> None:
    found, carried = play([seen("a"), job("b", 0.5)], fleet("both"), leaping=leaping)
    assert (found["a"].first_token_s, found["b"].first_token_s, carried) == (3.0, 4.0, [])


def test_an_image_is_encoded_once_and_not_at_all_if_its_blocks_are_cached() -> None:
    found, _ = play([seen("a"), seen("b", 20.0), seen("c", 40.0, key=8)], fleet("both"))
    assert [found[name].ttft_s for name in "abc"] == [3.0, 1.0, 3.0]
    found, _ = play([job("a", blocks=6), seen("b", 20.0, key=8, blocks=6)], fleet("both"))
    assert found["b"].ttft_s == 1.0


def test_an_encoder_hands_over_what_it_made_and_nobody_waits_for_it() -> None:
    found, carried = play([seen("a"), job("b", 0.5), seen("c", 0.5)], fleet("encode", "both"), itl=True)
    assert carried == [("r0>r1 320", 3.0), ("r0>r1 320", 4.0)]
    assert (found["a"].first_token_s, found["a"].prefilled_on) == (4.5, "r0")  # after a step for b
    assert (found["b"].first_token_s, found["b"].prefilled_on) == (1.5, None)


@pytest.mark.parametrize(
    "script",
    [
        "kill r0 at 1s",
        "kill r0 at 2.5s",  # when it has encoded, and hands over
        "kill r1 at 1s",
        "kill r1 at 2.5s",
        "drain r0 at 1s",
        "drain r1 at 1s",
    ],
)
@pytest.mark.parametrize("way_s", [0.0, 0.25])
def test_whoever_dies_or_drains_loses_nobody(script: str, way_s: float) -> None:
    found, _ = play([seen("a"), seen("b")], fleet("encode", "both", "both"), script=script, way_s=way_s)
    assert {one.status for one in found.values()} == {"completed"}


@pytest.mark.parametrize("upon", [Arrived, Prefilled])
def test_a_client_that_leaves_leaves_nothing_behind(upon: type[Event]) -> None:
    class Gone(Leaving):
        pass

    Gone.upon = upon
    found, carried = play([seen("a"), seen("b")], fleet("encode", "both"), kind=Gone)
    assert {one.status for one in found.values()} == {"cancelled"}
    assert not carried
    found, _ = play([seen("a")], fleet("both"), kind=Gone)
    assert {one.status for one in found.values()} <= {"cancelled", "completed"}


def test_an_engine_that_dies_forgets_its_images() -> None:
    found, _ = play([seen("a"), seen("b", 20.0)], fleet("both"), script="kill r0 at 10s; start r0 at 11s")
    assert found["b"].ttft_s == 3.0
    lost, _ = play([seen("a")], fleet("both", "both"), script="kill r0 at 1s; kill r1 at 9s")
    assert lost["a"].status == "completed"


def test_a_request_that_fits_nowhere_fails_once() -> None:
    found, _ = play([seen("a")], fleet("encode", "both", limits={"r1": Limits(context_tokens=101)}))
    assert "shorten the prompt" in str(found["a"].error)


def test_what_was_used_longest_ago_is_forgotten() -> None:
    memory = Seen()
    large = tuple(Media("image", key, 50_000) for key in range(3))
    assert memory.lacking(large) == 150_000
    assert memory.lacking(large[1:]) == 0
    assert memory.lacking(large[:1], cached_tokens=50_000) == 0
    assert memory.lacking(large[:1]) == 50_000


def test_encoders_that_nobody_priced_are_refused() -> None:
    with pytest.raises(ValueError, match="r0 has the role encode: give it an encoder"):
        play([job("a")], fleet_of("encode", "both"))
    with pytest.raises(ValueError, match="r0 has an encoder: its energy is not known"):
        play([job("a")], fleet("both"), metered=True)
    with pytest.raises(ValueError, match="with replicas that only encode no request moves yet"):
        simulate(
            [job("a")],
            fleet("encode", "both"),
            Controller(
                load("routing", "elasticmm"), load("queueing", "fcfs"), migration=load("migration", "llumnix")
            ),
            load("batching", "split_fuse"),
        )
