"""Connections to engines: reused when clean, dropped when not, and never left working for nobody."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest

from millrace.control import Controller
from millrace.core.event import Action, Cancel, Event, Refuse, Started
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import ask, caller, chat, controller, gateway_for, one_engine, run, until

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
EVENTS = b"data: 1\n\ndata: [DONE]\n\n"


def test_one_connection_serves_one_request_after_another() -> None:
    async def scenario() -> None:
        async with one_engine(scrape_s=60.0) as (engine, gateway), caller(gateway) as one:
            for number in range(10):
                assert (await one.ask(chat(stream=number % 2 == 0))).status == 200
            assert engine.connections == 1

    run(scenario())


@pytest.mark.parametrize("raw", [ANSWER + b"more", ANSWER + ANSWER, ANSWER.replace(b"1.1", b"1.0")])
def test_a_connection_that_carries_more_than_its_answer_is_not_used_again(raw: bytes) -> None:
    async def scenario() -> None:
        async with one_engine(scrape_s=60.0) as (engine, gateway), caller(gateway) as one:
            for split_bytes in (None, 1):
                engine.script = Script(raw=raw, split_bytes=split_bytes)
                before = engine.connections
                assert (await one.ask(chat())).body == b"{}"
                engine.script = Script()
                assert (await one.ask(chat())).json["usage"]["completion_tokens"] == 3
                assert engine.connections == before + 1

    run(scenario())


def test_a_stream_with_a_length_that_comes_in_one_piece_passes() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(EVENTS)

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            for split_bytes in (None, 3):
                engine.script = Script(raw=head + EVENTS, split_bytes=split_bytes)
                assert (await ask(gateway, chat(stream=True))).body == EVENTS

    run(scenario())


def test_clients_that_leave_while_their_engine_is_being_connected_leave_nothing_behind() -> None:
    async def scenario() -> None:
        async with one_engine(scrape_s=60.0) as (engine, gateway):
            engine.script = Script(breaks="silence")
            for _ in range(50):
                async with caller(gateway) as one:
                    await one.say(chat())
            await until(lambda: not gateway.clients and not gateway.exchanges, "all are gone")
            await until(lambda: not engine.live, "the engine was told to stop")
            engine.script = Script()
            assert (await ask(gateway, chat())).status == 200

    run(scenario())


def test_an_engine_that_cannot_be_connected_in_time_is_down() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            async with FakeEngine("b") as good:
                backends = (f"a=http://127.0.0.1:{deaf.getsockname()[1]}", f"b={good.url}")
                async with gateway_for(backends=backends, connect_timeout_s=0.2) as gateway:
                    assert gateway.fleet.members["a"].phase == "starting"
                    assert (await ask(gateway, chat())).fields["x-engine"] == "b"
            for filler in fillers:
                filler.close()

    run(scenario())


class Impatient(Controller):
    """Changes its mind about every request that has begun."""

    def on(self, event: Event) -> list[Action]:
        """Take back what was started."""
        if isinstance(event, Started):
            return [Cancel(event.request_id, "a"), Refuse(event.request_id, "too slow after all", 504)]
        return super().on(event)


def test_a_request_taken_back_in_the_middle_is_stopped_and_its_client_told() -> None:
    async def scenario() -> None:
        mind = Impatient(RoundRobin(), Fcfs())
        async with one_engine(mind=mind) as (engine, gateway):
            engine.script = Script(tokens=1000, tpot_s=0.01)
            answer = await ask(gateway, chat(stream=True))
            assert answer.whole
            assert answer.events[-1]["error"]["message"] == "too slow after all"
            await until(lambda: engine.aborted, "the engine was told to stop")

    run(scenario())


def test_a_burst_larger_than_the_pool_is_served_and_the_pool_stays_bounded() -> None:
    async def scenario() -> None:
        async with one_engine(scrape_s=60.0, mind=controller(max_held=1000)) as (engine, gateway):
            engine.script = Script(ttft_s=0.2)
            answers = await asyncio.gather(*(ask(gateway, chat()) for _ in range(300)))
            assert {answer.status for answer in answers} == {200}
            await until(lambda: len(engine.open_connections) <= 256, "the rest is closed")

    run(scenario())


def test_running_out_of_descriptors_is_not_held_against_the_engine() -> None:
    async def scenario() -> None:
        async with one_engine(scrape_s=60.0, mind=controller(max_hold_s=0.1)) as (engine, gateway):
            engine.script = Script(breaks="silence")
            async with caller(gateway) as first, caller(gateway) as second:
                await first.say(chat())
                await until(lambda: engine.live, "the only connection is taken")
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
                try:
                    answer = await second.ask(chat())
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert answer.status == 502
                assert gateway.fleet.ready == 1

    run(scenario())
