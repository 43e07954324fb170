"""Clients of every manner: early, late, slow, gone, in a row, and up to no good."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from millrace.gateway.app import Gateway
from millrace.gateway.exchange import Exchange
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import (
    Caller,
    ask,
    caller,
    chat,
    gateway_for,
    get,
    one_engine,
    post,
    run,
    until,
)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            engine.script = Script(ttft_s=0.01)
            await one.say(
                chat("x-request-id: 1") + get("/version") + chat("x-request-id: 2", stream=True) + get("/")
            )
            answers = [await one.answer() for _ in range(4)]
            assert [answer.status for answer in answers] == [200, 200, 200, 404]
            assert [answer.fields["x-request-id"] for answer in answers[:3:2]] == ["1", "2"]
            assert "version" in answers[1].json
            assert (await one.ask(chat())).status == 200

    run(scenario())


def test_many_pipelined_requests_are_read_no_faster_than_answered() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            await asyncio.gather(one.say(chat() * 300), _answers(one, 300))
            assert len(engine.heard) == 300

    async def _answers(one: Caller, count: int) -> None:
        for _ in range(count):
            assert (await one.answer()).status == 200

    run(scenario())


def test_a_client_that_asks_before_it_sends_is_told_to_go_on() -> None:
    body = json.dumps({"model": "m", "messages": []}).encode()

    async def scenario() -> None:
        async with one_engine() as (_, gateway), caller(gateway) as one:
            head, _, _ = post(body, "expect: 100-continue").partition(b"\r\n\r\n")
            assert (await one.ask(head + b"\r\n\r\n")).status == 100
            assert (await one.ask(body)).status == 200
            assert (await one.ask(post(b"", "expect: miracles"))).status == 417

    run(scenario())


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, None),
        (b"GET / HTTP/1.1\r\n\r\n", 400, None),
        (post(b"{}", "transfer-encoding: chunked"), 400, None),
        (post(b"{}", "content-length: 2"), 400, None),
        (b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"x" * 300_000, 431, "headers_too_large"),
        (post(b"")[:-4].replace(b": 0", b": 9999999") + b"\r\n\r\n", 413, "request_too_large"),
        (b"CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\n", 405, "method_not_allowed"),
    ],
)
def test_what_cannot_be_read_safely_is_refused_in_json_and_the_connection_closed(
    raw: bytes, status: int, code: str | None
) -> None:
    async def scenario() -> None:
        async with one_engine(max_body_bytes=1 << 20) as (engine, gateway), caller(gateway) as one:
            answer = await one.ask(raw)
            assert (answer.status, answer.json["error"]["code"]) == (status, code)
            assert answer.fields["connection"] == "close"
            assert "x-request-id" in answer.fields
            assert await one.ended()
            assert not engine.heard

    run(scenario())


def test_a_body_too_large_is_refused_without_being_read_and_the_answer_arrives() -> None:
    async def scenario() -> None:
        async with one_engine(max_body_bytes=1 << 16) as (_, gateway), caller(gateway) as one:
            raw = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
            sending = asyncio.create_task(one.say(raw + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 40))
            assert (await one.answer()).status == 413
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    run(scenario())


def test_a_smuggled_request_is_never_performed() -> None:
    smuggled = chat("x-request-id: smuggled")

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            for line in ("transfer-encoding: chunked", "content-length: 5", "transfer-encoding: xchunked"):
                async with caller(gateway) as one:
                    assert (await one.ask(post(b"0\r\n\r\n" + smuggled, line))).status == 400
            assert not engine.heard
            async with caller(gateway) as one:
                assert (await one.ask(post(b"0\r\n\r\n" + smuggled))).status == 400
                assert (await one.ask(chat())).status == 200
            assert len(engine.heard) == 1

    run(scenario())


def test_a_client_that_leaves_frees_its_engine_at_once() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(tokens=10_000, tpot_s=0.01)
            async with caller(gateway) as one:
                await one.say(chat(stream=True))
                await until(lambda: engine.live, "the engine works")
                one.reset()
                await until(lambda: not gateway.clients, "the gateway knows")
                assert not gateway.exchanges
            await until(lambda: engine.aborted and not engine.live, "the engine was told to stop")
            page = (await ask(gateway, get("/metrics"))).body
            assert b'outcome="client_cancelled"} 1.0' in page
            assert b'millrace_stream_aborted_total{side="client"} 1.0' in page
            engine.script = Script()
            assert (await ask(gateway, chat("connection: close"))).status == 200

    run(scenario())


@pytest.mark.parametrize("held", [False, True])
def test_a_client_that_leaves_before_the_first_byte_is_forgotten(held: bool) -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            engine.script = Script(breaks="silence")
            if held:
                await engine.stop()
                await until(lambda: not gateway.fleet.ready, "the engine is known to be down")
            await one.say(chat())
            await until(lambda: gateway.exchanges, "the request is in flight")
            one.reset()
            await until(lambda: not gateway.exchanges, "the request is forgotten")
            assert held or await _stopped(engine)

    async def _stopped(engine: FakeEngine) -> bool:
        await until(lambda: engine.aborted == 1, "the engine was told to stop")
        return True

    run(scenario())


def test_a_slow_reader_holds_the_engine_back_and_loses_nothing() -> None:
    tokens, pad = 1500, 10_000

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(tokens=tokens, pad_bytes=pad)
            slow = socket.socket()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            slow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", gateway.port))
            async with caller(gateway) as other:
                reader, writer = await asyncio.open_connection(sock=slow, limit=1 << 20)
                writer.write(chat(stream=True))
                (exchange,) = await _in_flight(gateway)
                await until(
                    lambda: exchange.connection and exchange.connection.paused, "the engine is held back"
                )
                assert engine.live == 1
                assert (await other.ask(get("/livez"))).status == 200
                body = bytearray(await reader.readuntil(b"\r\n\r\n"))
                while not body.endswith(b"0\r\n\r\n"):
                    body += await reader.read(1 << 20)
                writer.transport.abort()
            assert body.count(b"data: {") == tokens
            assert (await ask(gateway, chat("connection: close"))).status == 200

    run(scenario())


async def _in_flight(gateway: Gateway) -> list[Exchange]:
    await until(lambda: gateway.exchanges, "the request is in flight")
    return list(gateway.exchanges.values())


def test_a_reader_that_stops_reading_is_given_up_in_the_end() -> None:
    async def scenario() -> None:
        async with one_engine(client_timeout_s=0.2) as (engine, gateway), caller(gateway, limit=1024) as one:
            engine.script = Script(tokens=5000, pad_bytes=10_000)
            await one.say(chat(stream=True))
            await until(lambda: engine.aborted, "the engine was told to stop")
            assert not gateway.exchanges

    run(scenario())


def test_a_request_that_stops_half_way_is_answered_with_a_timeout() -> None:
    async def scenario() -> None:
        async with one_engine(client_timeout_s=0.1) as (_, gateway):
            for half in (chat()[:30], chat()[:-5]):
                async with caller(gateway) as one:
                    answer = await one.ask(half)
                    assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
                    assert await one.ended()

    run(scenario())


def test_an_idle_connection_is_closed_in_the_end() -> None:
    async def scenario() -> None:
        async with one_engine(idle_timeout_s=0.1) as (_, gateway), caller(gateway) as one:
            assert (await one.ask(chat())).status == 200
            assert await one.ended()

    run(scenario())


def test_a_client_in_no_hurry_to_finish_its_request_is_waited_for() -> None:
    raw = chat(stream=True)

    async def scenario() -> None:
        async with one_engine() as (_, gateway), caller(gateway) as one:
            for start in range(0, len(raw), 3):
                await one.say(raw[start : start + 3])
                await asyncio.sleep(0)
            assert (await one.answer()).status == 200

    run(scenario())


def test_java_clients_that_want_to_upgrade_are_answered_in_http_1() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            lines = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk")
            for _ in range(2):
                assert (await one.ask(chat(*lines))).status == 200
            assert "upgrade" not in engine.heard[0].headers

    run(scenario())


def test_two_requests_with_one_id_are_told_apart() -> None:
    async def scenario() -> None:
        async with FakeEngine("a", script=Script(ttft_s=0.05)) as engine, gateway_for(engine) as gateway:
            answers = await asyncio.gather(*(ask(gateway, chat("x-request-id: same")) for _ in range(3)))
            ids = sorted(answer.fields["x-request-id"] for answer in answers)
            assert ids[0] == "same"
            assert len(set(ids)) == 3
            assert sorted(heard.headers["x-request-id"] for heard in engine.heard) == ids

    run(scenario())
