"""What the controller is told, what the log holds, and what answers cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.control.log import Entry, read_entry, read_header, replay
from millrace.core.event import (
    Arrived,
    Cancelled,
    Dispatch,
    Event,
    Failed,
    Finished,
    Refuse,
    Reported,
    Started,
)
from millrace.core.fleet import Decision, FleetView, Route
from millrace.core.request import Request, Slo
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import ask, caller, chat, controller, gateway_for, one_engine, run, until


def entries(path: Path) -> list[Entry]:
    """Read a log's entries but those of health."""
    header, *lines = path.read_bytes().splitlines()
    assert read_header(header).notes["backends"]
    found = [read_entry(line, number) for number, line in enumerate(lines, 2)]
    assert [entry.event.now_s for entry in found] == sorted(entry.event.now_s for entry in found)
    return [entry for entry in found if not isinstance(entry.event, Reported)]


def kinds(found: list[Entry]) -> list[type[Event]]:
    """The events' types, in order."""
    return [type(entry.event) for entry in found]


def test_the_log_tells_a_requests_whole_story_and_replays_bit_for_bit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine, gateway_for(engine, event_log=tmp_path / "log") as gateway:
            engine.script = Script(tokens=4, cached_tokens=1)
            for stream in (True, False):
                lines = (f"x-request-id: {stream}", "x-session-id: s", "x-tenant-id: t", "x-slo-ttft-ms: 500")
                await ask(gateway, chat(*lines, stream=stream, max_tokens=9))

    run(scenario())
    found = entries(tmp_path / "log")
    assert kinds(found) == [Arrived, Started, Finished] * 2
    arrived, finished = found[0].event, found[2].event
    assert isinstance(arrived, Arrived)
    request = arrived.request
    assert (request.id, request.model, request.max_tokens) == ("True", "m", 9)
    assert (request.session, request.tenant, request.slo) == ("s", "t", Slo(ttft_s=0.5))
    assert found[0].actions == [Dispatch("True", "a", 1)]
    assert isinstance(finished, Finished)
    assert (finished.output_tokens, finished.cached_tokens) == (4, 1)
    replayed = replay((tmp_path / "log").read_bytes().splitlines())
    assert replayed.identical == replayed.actions >= 2


def test_attempts_that_fail_are_told_and_so_is_the_one_that_does_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        engines = FakeEngine("a", script=Script(breaks="reset")), FakeEngine("b")
        async with engines[0], engines[1], gateway_for(*engines, event_log=tmp_path / "log") as gateway:
            await ask(gateway, chat())

    run(scenario())
    found = entries(tmp_path / "log")
    assert kinds(found) == [Arrived, Failed, Started, Finished]
    failed = found[1].event
    assert isinstance(failed, Failed)
    assert failed.retryable
    assert not failed.replica_down
    assert found[1].actions == [Dispatch(found[0].event.request.id, "b", 2)]  # type: ignore[union-attr]


def test_an_unreachable_engine_is_told_to_be_down(tmp_path: Path) -> None:
    async def scenario() -> None:
        mind, log = controller(max_hold_s=0.05), tmp_path / "log"
        async with one_engine(mind=mind, event_log=log, scrape_s=60.0) as (engine, gateway):
            await engine.stop()
            assert (await ask(gateway, chat())).status == 503

    run(scenario())
    found = entries(tmp_path / "log")
    failed = next(entry.event for entry in found if isinstance(entry.event, Failed))
    assert failed.replica_down
    assert isinstance(found[-1].actions[0], Refuse)


def test_a_stream_that_breaks_and_a_client_that_leaves_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_engine(event_log=tmp_path / "log") as (engine, gateway):
            engine.script = Script(breaks="reset", break_after=1)
            await ask(gateway, chat(stream=True))
            engine.script = Script(breaks="silence", break_after=1)
            async with caller(gateway) as one:
                await one.say(chat(stream=True))
                await one.reader.readuntil(b"data: ")
            await until(lambda: not gateway.exchanges, "the client's leaving is known")

    run(scenario())
    found = entries(tmp_path / "log")
    assert kinds(found) == [Arrived, Started, Failed, Arrived, Started, Cancelled]
    failed = found[2].event
    assert isinstance(failed, Failed)
    assert not failed.retryable


def test_usage_is_asked_for_and_kept_from_those_who_did_not() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            for asked in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
                answer = await ask(gateway, chat(stream=True, **asked))
                assert engine.heard[-1].json["stream_options"] == {"include_usage": True}
                assert [event for event in answer.events if "usage" in event] == []
                assert answer.events[-1] == "[DONE]"
            options = {"include_usage": True, "continuous_usage_stats": False}
            answer = await ask(gateway, chat(stream=True, stream_options=options))
            assert engine.heard[-1].json["stream_options"] == options
            assert answer.events[-2]["usage"]["completion_tokens"] == 3
            await ask(gateway, chat(stream=False))
            assert "stream_options" not in engine.heard[-1].json

    run(scenario())


class Moody:
    """A policy with a bug."""

    def route(self, request: Request, fleet: FleetView) -> Decision:
        """Fail for some."""
        if request.session == "bad":
            raise ZeroDivisionError
        return Route("a" if request.session is None else request.session)


def test_a_policys_bug_costs_the_request_at_hand_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with one_engine(mind=controller(Moody(), max_hold_s=60.0)) as (_, gateway):
            for session in ("bad", "no-such-replica"):
                answer = await ask(gateway, chat(f"x-session-id: {session}"))
                assert (answer.status, answer.json["error"]["code"]) == (500, "internal_error")
                assert answer.fields["x-should-retry"] == "false"
            assert (await ask(gateway, chat())).status == 200
            assert not gateway.exchanges

    run(scenario())
    assert "ZeroDivisionError" in caplog.text
