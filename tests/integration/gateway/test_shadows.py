"""Shadows of a live gateway are counted, and whatever they do, no request is worse off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.control import Controller, ControlSettings
from millrace.control.hindsight import compare, explain_logged, report
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Hold, Route, Sent
from millrace.core.request import Request
from millrace.gateway.server import listening
from millrace.gateway.settings import GatewaySettings
from millrace.gateway.shadows import Shadows
from millrace.policies import load
from millrace.testing.engine import FakeEngine
from tests.integration.gateway.world import caller, chat, get, run


@dataclass
class Broken:
    """Raises whatever it is asked, or told."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        raise RuntimeError("a bug")

    def note(self, fact: Event | Sent) -> None:
        raise RuntimeError("another bug")


@dataclass
class Idle:
    """Sends nothing anywhere."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Hold("later")


@dataclass
class First:
    """Sends everything to the first replica."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Route(min(replica.id for replica in fleet.able(request)))


async def _asked(
    policies: Mapping[str, Any], requests: int, log: Path | None = None
) -> Counter[tuple[str, str]]:
    """Ask a gateway of two engines, with these shadows; return what it counted."""
    shadows = Shadows(policies)
    settings = ControlSettings(log_scores=True)
    mind = Controller(load("routing", "least_work"), load("queueing", "fcfs"), settings, witness=shadows)
    async with FakeEngine("a") as a, FakeEngine("b") as b:
        backends = tuple(f"{engine.name}={engine.url}" for engine in (a, b))
        made = GatewaySettings(backends=backends, port=0, scrape_s=0.05, event_log=log)
        async with listening(made, mind, shadows) as gateway, caller(gateway) as client:
            for _ in range(requests):
                assert (await client.ask(chat())).status == 200
            page = (await client.ask(get("/metrics"))).body.decode()
    for (policy, how), count in shadows.counted.items():
        line = f'millrace_shadow_decision_total{{policy="{policy}",agreement="{how}"}} {float(count)}'
        assert line in page
    return shadows.counted


def test_agreement_is_counted_by_shadow() -> None:
    async def scenario() -> None:
        counted = await _asked({"first": First(), "idle": Idle()}, 12)
        assert counted["idle", "none"] == 12
        assert counted["first", "same"] + counted["first", "other"] == 12
        assert counted["first", "other"] > 0

    run(scenario())


def test_a_shadow_that_raises_costs_no_request_anything() -> None:
    async def scenario() -> None:
        counted = await _asked({"broken": Broken(), "first": First()}, 5)
        assert counted["broken", "error"] > 5
        assert {how for name, how in counted if name == "broken"} == {"error"}
        assert counted["first", "same"] + counted["first", "other"] == 5

    run(scenario())


def test_a_live_log_can_be_asked_why(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    run(_log_something(log))
    lines = log.read_bytes().splitlines(keepends=True)
    [request_id, *_] = [
        line.split(b'"id":"')[1].split(b'"')[0].decode() for line in lines if b"Arrived" in line
    ]
    answer = explain_logged(lines, request_id)
    assert isinstance(answer.decision, Route)
    assert answer.sent_to == answer.decision.replica
    assert (answer.first_difference, len(answer.candidates)) == (None, 2)
    found = report(lines)
    assert (found.scored, found.by_policy[-1].requests) == (4, 4)
    told, [same] = compare(lines, {"least_work": load("routing", "least_work")})
    assert (told.first_difference, same.same) == (None, 4)


async def _log_something(log: Path) -> None:
    await _asked({"random": load("routing", "random")}, 4, log)
