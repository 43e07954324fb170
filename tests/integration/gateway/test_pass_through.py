"""What clients and engines say to each other arrives as it was said."""

from __future__ import annotations

import asyncio
import json

import pytest

from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import ask, caller, chat, gateway_for, one_engine, post, run

EVENTS = (
    b'data: {"choices":[{"delta":{"content":"\xc3\xa9 1"}}],"usage":null}\n\n'
    b": keep-alive\r\n\r\n"
    b'event: x\ndata: {"choices": [ ],  "odd" : 1.0e3}\n\n'
    b"data: [DONE]\n\n"
)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(size: int) -> bytes:
    """The events in chunks of this size, each with an extension, and a trailer behind them."""
    parts = [EVENTS[start : start + size] for start in range(0, len(EVENTS), size)]
    framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts)
    return STREAM + framed + b"0\r\nx-trailer: 1\r\n\r\n"


@pytest.mark.parametrize("chunk_size", [1, 7, 60, 10_000])
@pytest.mark.parametrize("split_bytes", [1, 5, 64, None])
def test_a_stream_arrives_byte_for_byte_however_it_is_chunked_and_cut(
    chunk_size: int, split_bytes: int | None
) -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(raw=chunked(chunk_size), split_bytes=split_bytes)
            async with caller(gateway) as one:
                for asked in ({}, {"include_usage": True}):
                    answer = await one.ask(chat(stream=True, stream_options=asked))
                    assert answer.body == EVENTS
                    assert answer.whole
                    assert all(part.endswith((b"\n\n", b"\r\n\r\n")) for part in answer.chunks)
            assert engine.connections <= 3

    run(scenario())


def test_a_streams_head_tells_proxies_to_keep_their_hands_off() -> None:
    async def scenario() -> None:
        async with one_engine() as (_, gateway):
            answer = await ask(gateway, chat(stream=True))
            assert answer.fields["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.fields["cache-control"] == "no-cache"
            assert answer.fields["x-accel-buffering"] == "no"
            assert answer.fields["x-millrace-replica"] == "a"
            assert answer.fields["x-engine"] == "a"

    run(scenario())


def test_what_an_engine_says_to_proxies_itself_is_not_said_twice() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            engine.script = Script(headers=("X-Accel-Buffering: no", "Cache-Control: no-store"))
            await one.say(chat(stream=True))
            head = (await one.reader.readuntil(b"\r\n\r\n")).lower()
            assert head.count(b"x-accel-buffering:") == head.count(b"cache-control:") == 1

    run(scenario())


def test_a_body_reaches_the_engine_as_the_client_wrote_it() -> None:
    body = b'{ "model":"m" ,"messages":[ ],"unknown":{"a":[1.0,1e2]}, "top_k":5,\n"kv_transfer_params":null}'

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            lines = ("x-any: Thing", "authorization: Bearer k", "connection: keep-alive, x-hop", "x-hop: 1")
            await ask(gateway, post(body, *lines, "accept-encoding: gzip", "traceparent: 00-1-2-03"))
            (heard,) = engine.heard
            assert heard.body == body
            assert heard.headers["x-any"] == "Thing"
            assert heard.headers["authorization"] == "Bearer k"
            assert heard.headers["traceparent"] == "00-1-2-03"
            assert heard.headers["content-type"] == "application/json"
            assert not {"x-hop", "connection", "accept-encoding"} & set(heard.headers)

    run(scenario())


def test_a_chunked_request_body_reaches_the_engine_with_a_length() -> None:
    body = json.dumps({"model": "m", "messages": []}).encode()
    raw = b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    raw += b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            assert (await ask(gateway, raw)).status == 200
            (heard,) = engine.heard
            assert heard.body == body
            assert heard.path == "/v1/chat/completions?x=1"

    run(scenario())


def test_an_answer_keeps_its_status_fields_and_bytes() -> None:
    body = b'{"odd" : 1.50, "usage":null}\n'
    head = (
        b"HTTP/1.1 202 Sure Thing\r\nContent-Type: application/json\r\nX-Custom: Value\r\nconnection: x\r\n"
    )

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            for raw in (
                head + b"content-length: %d\r\n\r\n%b" % (len(body), body),
                head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            ):
                engine.script = Script(raw=raw)
                answer = await ask(gateway, chat("x-request-id: mine"))
                assert (answer.status, answer.body) == (202, body)
                assert answer.fields["x-custom"] == "Value"
                assert answer.fields["x-request-id"] == "mine"
                assert answer.fields["x-millrace-replica"] == "a"
                assert "connection" not in answer.fields

    run(scenario())


def test_an_answer_that_lasts_until_the_engine_closes_arrives_whole() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(until_close=True)
            answer = await ask(gateway, chat(stream=True))
            assert answer.whole
            assert answer.events[-1] == "[DONE]"
            engine.script = Script(raw=b"HTTP/1.1 200 OK\r\n\r\nplain", until_close=True)
            assert (await ask(gateway, chat())).body == b"plain"

    run(scenario())


def test_an_answer_too_large_to_hold_is_passed_through() -> None:
    body = b'{"data":"' + b"x" * (3 << 20) + b'","usage":{"prompt_tokens":7,"total_tokens":7}}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            for raw in (
                head + b"content-length: %d\r\n\r\n%b" % (len(body), body),
                head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            ):
                engine.script = Script(raw=raw)
                answer = await ask(gateway, post(b'{"model":"m","input":"x"}', path="/v1/embeddings"))
                assert answer.body == body
                assert answer.whole
            page = (await ask(gateway, b"GET /metrics HTTP/1.1\r\nhost: h\r\n\r\n")).body
            assert b'millrace_request_input_tokens_sum{model="m",replica="a"} 14.0' in page

    run(scenario())


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" * 2]
)
def test_interim_answers_are_passed_over(interim: bytes) -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(raw=interim + b"HTTP/1.1 204 No Content\r\n\r\n", split_bytes=3)
            answer = await ask(gateway, chat())
            assert (answer.status, answer.body) == (204, b"")

    run(scenario())


def test_an_old_client_gets_its_stream_without_chunks_and_a_closed_connection() -> None:
    body = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)

    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            engine.script = Script(tpot_s=0.01)
            answer = await one.ask(head + body)
            assert "transfer-encoding" not in answer.fields
            assert answer.fields["connection"] == "close"
            assert [type(event) for event in answer.events] == [dict, dict, dict, str]

    run(scenario())


def test_the_next_dialects_pass_through_untouched() -> None:
    events = b'event: message_start\ndata: {"type":"message_start"}\n\nevent: message_stop\ndata: {}\n\n'
    raw = STREAM + b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(raw=raw)
            body = b'{"model":"m","messages":[],"stream":true,"max_tokens":5}'
            assert (await ask(gateway, post(body, path="/v1/messages"))).body == events
            assert engine.heard[0].body == body

    run(scenario())


def test_the_plain_event_loop_serves_as_well() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            for stream in (True, False, True):
                assert (await one.ask(chat(stream=stream))).whole
            engine.script = Script(breaks="reset", break_after=1)
            assert "error" in (await one.ask(chat(stream=True))).events[-1]

    asyncio.run(asyncio.wait_for(scenario(), 60.0))


def test_a_clients_base_url_will_do_for_a_backend() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine, gateway_for(backends=(f"{engine.url}/v1/",)) as gateway:
            assert (await ask(gateway, chat())).fields["x-millrace-replica"] == engine.id
            assert engine.heard[0].path == "/v1/chat/completions"

    run(scenario())
