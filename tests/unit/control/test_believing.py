"""What engines say of their caches, in specs and with each answer, corrects what is believed of them."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.control import Controller
from millrace.control.log import entry, header, replay
from millrace.core.blocks import chain_contents
from millrace.core.draw import draw_below
from millrace.core.event import Arrived, Event, Failed, Finished, Moved, Prefilled, Reported, Started
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.testing import fakes
from tests.unit.control.scripted import controller_of


def _prompt(id: str, content: int = 0, tokens: int = 1600) -> Request:
    blocks = chain_contents(tuple(range(content, content + tokens // 16)))
    return fakes.request(id, prompt_tokens=tokens, blocks=blocks)


def _serve(
    controller: Controller, request: Request, cached_tokens: int | None, *, output_tokens: int = 0
) -> int:
    """Let a request arrive and be answered; return how many of its tokens were believed to be cached."""
    controller.on(Arrived(1.0, request))
    believed = request.prompt_tokens - controller.state.flights[request.id].queued_tokens
    controller.on(Started(1.0, request.id))
    controller.on(Finished(1.0, request.id, request.prompt_tokens, output_tokens, cached_tokens))
    return believed


def _with_cache(limits: Limits | None, **fields: Any) -> Controller:
    controller = controller_of(prefix_knowledge=fields.pop("prefix_knowledge", "answers"))
    controller.on(Reported(0.0, "a", "ready", ReplicaSpec(models=("m",), limits=limits, **fields)))
    return controller


@pytest.mark.parametrize(
    ("controller", "believed"),
    [
        (_with_cache(None), 1600),
        (_with_cache(Limits(kv_blocks=50)), 0),
        (_with_cache(Limits(kv_blocks=150)), 800),
        (_with_cache(Limits(kv_blocks=150), expert_parallel=4), 1600),
        (_with_cache(Limits(prefix_caching=False)), 0),
        (_with_cache(Limits(kv_blocks=50), prefix_knowledge="events"), 1600),
        (_with_cache(Limits(kv_blocks=50), prefix_knowledge="sent"), 1600),
    ],
)
def test_no_more_is_believed_than_a_cache_of_known_size_has_room_for(
    controller: Controller, believed: int
) -> None:
    assert _serve(controller, _prompt("q0"), None) == 0
    _serve(controller, _prompt("q1", 1000, 1200), None, output_tokens=400)
    assert _serve(controller, _prompt("q2"), None) == believed


def test_a_request_without_blocks_takes_room_in_a_cache_as_well() -> None:
    controller = _with_cache(Limits(kv_blocks=150))
    _serve(controller, _prompt("q0"), None)
    _serve(controller, fakes.request("q1", prompt_tokens=1600), None)
    assert _serve(controller, _prompt("q2"), None) == 800


def test_answers_show_that_a_prompt_is_gone_and_that_it_is_back() -> None:
    controller = controller_of("a", prefix_knowledge="answers")
    found = [_serve(controller, _prompt(f"q{n}", 1000 * (n % 2)), 0) for n in range(12)]
    assert found[:2] == [0, 0]
    assert found[2] == found[4] == 1600
    assert found[-2:] == [0, 0]
    for n in range(40):
        _serve(controller, _prompt(f"again-{n}", 1000 * (n % 2)), 1600)
    assert _serve(controller, _prompt("last"), 1600) == 1600


def test_what_a_guessed_prompt_really_counts_is_taken_into_account() -> None:
    controller = controller_of("a", prefix_knowledge="answers")
    for n in range(12):
        controller.on(Arrived(1.0, _prompt(f"q{n}", 1000 * (n % 2))))
        controller.on(Finished(1.0, f"q{n}", prompt_tokens=400, cached_tokens=400))
    assert _serve(controller, _prompt("last"), 1600) == 1600


def test_an_engine_that_tells_nothing_but_what_was_cached_is_understood() -> None:
    controller = controller_of("a", prefix_knowledge="answers")
    for n in range(12):
        controller.on(Arrived(1.0, _prompt(f"q{n}", 1000 * (n % 2))))
        controller.on(Finished(1.0, f"q{n}", cached_tokens=0))
    assert _serve(controller, _prompt("last"), 0) == 0


def test_an_answer_that_moved_is_no_witness_of_either_cache() -> None:
    controller = controller_of("a", "b", prefix_knowledge="answers")
    for n in range(12):
        name = f"q{n}"
        controller.on(Arrived(1.0, _prompt(name)))
        controller.on(Started(1.0, name))
        flight = controller.state.flights[name]
        controller.state.set_out(flight, "b")
        controller.on(Moved(1.0, name, "b"))
        controller.on(Finished(1.0, name, 1600, 0, 0))
    assert controller.state.replicas["b"].prefix.matched_tokens(_prompt("asked")) == 1600


def test_an_answer_that_went_on_elsewhere_is_no_witness() -> None:
    controller = controller_of("a", max_attempts=100, prefix_knowledge="answers")
    for n in range(12):
        name = f"q{n}"
        controller.on(Arrived(1.0, _prompt(name)))
        controller.on(Started(1.0, name))
        flight = controller.state.flights[name]
        controller.state.land(flight)
        controller.state.resume(flight, 5)
        controller.state.launch(flight, "a", 1.0)
        controller.on(Finished(1.0, name, 1600, 0, 0))
    assert controller.state.replicas["a"].prefix.matched_tokens(_prompt("asked")) == 1600


def test_a_prompt_that_was_computed_elsewhere_is_no_witness() -> None:
    controller = controller_of("a", "b", prefix_knowledge="answers")
    for n in range(12):
        flight = controller.state.admit(_prompt(f"q{n}"), "m")
        controller.state.launch_apart(flight, "a", "b", 1.0)
        if n % 2:
            controller.on(Prefilled(1.0, f"q{n}"))
        controller.on(Finished(1.0, f"q{n}", 1600, 0, 0))
    for name in ("a", "b"):
        assert controller.state.replicas[name].prefix.matched_tokens(_prompt("asked")) == 1600


def test_a_log_of_what_was_learned_replays_bit_for_bit() -> None:
    controller = controller_of(routing="prefix_affinity", prefix_knowledge="answers")
    lines = [header(controller)]
    spec = ReplicaSpec(models=("m",), limits=Limits(kv_blocks=600))
    events: list[Event] = [Reported(0.0, "a", "ready", spec)]
    events.append(Reported(0.0, "b", "ready", ReplicaSpec(models=("m",))))
    for n in range(200):
        prompt = _prompt(f"q{n}", 1000 * draw_below(6, "prompt", n))
        events.append(Arrived(n, prompt))
        cached = 1600 * draw_below(2, "cached", n)
        events.append(Failed(n + 0.5, prompt.id, "broke") if n % 7 == 0 else Started(n + 0.5, prompt.id))
        events.append(Finished(n + 0.5, prompt.id, 1600, 10, cached))
    lines += [entry(event, controller.on(event)) for event in events]
    found = replay(lines)
    assert found.first_difference is None
    assert found.identical == found.actions >= 200
