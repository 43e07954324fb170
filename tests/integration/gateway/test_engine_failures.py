"""Whatever an engine does wrong: another one answers, or the client is told; never silence."""

from __future__ import annotations

import pytest

from millrace.testing.engine import FakeEngine
from millrace.testing.script import Break, Script
from tests.integration.gateway.world import (
    ask,
    caller,
    chat,
    controller,
    gateway_for,
    get,
    one_engine,
    post,
    run,
    until,
)

BREAKS: tuple[Break, ...] = ("reset", "close", "garbage")
HTML = Script(raw=b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        *(Script(breaks=how) for how in BREAKS),
        *(Script(breaks=how, break_after=0) for how in BREAKS[:2]),
        Script(status=502),
        Script(status=503),
        Script(status=429, headers=("retry-after: 3",)),
        Script(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
        Script(raw=b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        HTML,
    ],
)
def test_before_the_first_byte_another_engine_answers(script: Script, stream: bool) -> None:
    async def scenario() -> None:
        async with (
            FakeEngine("a", script=script) as bad,
            FakeEngine("b") as good,
            gateway_for(bad, good) as gateway,
        ):
            async with caller(gateway) as one:
                for _ in range(3):
                    answer = await one.ask(chat(stream=stream))
                    assert (answer.status, answer.fields["x-engine"]) == (200, "b")
                    assert answer.whole
            assert bad.heard
            assert b"millrace_retry_total{reason=" in (await ask(gateway, get("/metrics"))).body

    run(scenario())


def test_an_answer_cut_in_its_middle_is_begun_again_elsewhere_when_none_of_it_was_passed_on() -> None:
    async def scenario() -> None:
        script = Script(breaks="reset", break_after=1, tokens=50)
        async with (
            FakeEngine("a", script=script) as bad,
            FakeEngine("b") as good,
            gateway_for(bad, good) as gateway,
        ):
            assert (await ask(gateway, chat())).fields["x-engine"] == "b"

    run(scenario())


@pytest.mark.parametrize("how", BREAKS)
def test_after_the_first_token_the_client_is_told_within_the_stream(how: Break) -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine, FakeEngine("b") as other, gateway_for(engine, other) as gateway:
            engine.script = other.script = Script(breaks=how, break_after=2, tokens=5)
            async with caller(gateway) as one:
                answer = await one.ask(chat(stream=True))
                assert answer.status == 200
                assert answer.whole
                *tokens, error = answer.events
                assert len(tokens) == 2
                assert error["error"]["type"] == "api_error"
                assert error["error"]["code"] == "upstream_error"
                assert error["error"]["param"] is None
                engine.script = other.script = Script()
                assert (await one.ask(chat())).status == 200
            page = (await ask(gateway, get("/metrics"))).body
            assert b'millrace_stream_aborted_total{side="engine"} 1.0' in page
            assert b'outcome="upstream_failed"} 1.0' in page

    run(scenario())


def test_a_broken_stream_never_ends_in_half_an_event() -> None:
    whole = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    cut = b"%x\r\n%b" % (2 * len(whole), whole + whole[:20])

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(raw=head + cut, hang_up=True)
            answer = await ask(gateway, chat(stream=True))
            assert answer.body.startswith(whole + b'data: {"error"')
            assert answer.body.endswith(b"}\n\n")
            assert answer.whole

    run(scenario())


def test_a_stream_that_just_stops_is_an_error_unless_it_was_properly_ended() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(until_close=True, end_mark=False)
            assert "error" in (await ask(gateway, chat(stream=True))).events[-1]
            engine.script = Script(end_mark=False)
            assert "choices" in (await ask(gateway, chat(stream=True))).events[-1]
            assert b"millrace_stream_unfinished_total{} 1.0" in (await ask(gateway, get("/metrics"))).body

    run(scenario())


def test_a_large_answer_that_breaks_is_cut_so_that_nobody_takes_it_for_whole() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n\r\n"

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(raw=head + b"x" * 2_000_000, hang_up=True)
            assert not (await ask(gateway, chat())).whole

    run(scenario())


def test_when_nobody_could_answer_the_last_engines_own_words_are_passed_on() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(status=503, headers=("retry-after: 7",))
            answer = await ask(gateway, chat())
            assert answer.status == 503
            assert answer.json["error"]["message"] == "status 503"
            assert answer.fields["retry-after"] == "7"
            assert len(engine.heard) == 3

    run(scenario())


def test_when_nobody_could_answer_and_said_nothing_sensible_the_error_is_ours() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = HTML
            answer = await ask(gateway, chat())
            assert answer.status == 502
            assert answer.json["error"]["code"] == "upstream_error"
            assert answer.fields["x-should-retry"] == "true"

    run(scenario())


@pytest.mark.parametrize("status", [400, 404, 422, 429])
def test_an_engines_refusal_is_passed_on_and_not_tried_again(status: int) -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(status=status)
            answer = await ask(gateway, chat(stream=True))
            assert (answer.status, answer.json["error"]["type"]) == (status, "fake")
            assert len(engine.heard) == 1
            page = (await ask(gateway, get("/metrics"))).body
            assert b'model="m",replica="a",outcome="client_error"} 1.0' in page

    run(scenario())


def test_a_request_that_breaks_an_engine_with_a_500_does_not_wander_to_the_others() -> None:
    async def scenario() -> None:
        script = Script(status=500)
        async with (
            FakeEngine("a", script=script) as first,
            FakeEngine("b", script=script) as second,
            gateway_for(first, second) as gateway,
        ):
            answer = await ask(gateway, chat())
            assert (answer.status, answer.json["error"]["message"]) == (500, "status 500")
            assert len(first.heard) + len(second.heard) == 1
            page = (await ask(gateway, get("/metrics"))).body
            assert b'outcome="engine_error"} 1.0' in page

    run(scenario())


@pytest.mark.parametrize("break_after", [None, 0])
def test_a_silent_engine_is_given_up_and_another_one_asked(break_after: int | None) -> None:
    async def scenario() -> None:
        script = Script(breaks="silence", break_after=break_after)
        async with FakeEngine("a", script=script) as bad, FakeEngine("b") as good:
            async with gateway_for(bad, good, first_byte_timeout_s=0.2) as gateway:
                answers = [await ask(gateway, chat(stream=True)) for _ in range(2)]
                assert [answer.fields["x-engine"] for answer in answers] == ["b", "b"]
            await until(lambda: bad.aborted, "the silent engine was told to stop")

    run(scenario())


def test_a_stream_that_falls_silent_is_given_up() -> None:
    async def scenario() -> None:
        async with one_engine(stall_timeout_s=0.2) as (engine, gateway):
            engine.script = Script(breaks="silence", break_after=2)
            answer = await ask(gateway, chat(stream=True))
            assert "sent nothing for 0.2 s" in answer.events[-1]["error"]["message"]
            await until(lambda: engine.aborted, "the engine was told to stop")

    run(scenario())


def test_an_idle_connection_that_the_engine_closed_is_replaced_without_a_failure() -> None:
    async def scenario() -> None:
        async with one_engine(mind=controller(max_attempts=1)) as (engine, gateway), caller(gateway) as one:
            engine.script = Script(hang_up=True)
            for _ in range(20):
                assert (await one.ask(chat())).status == 200
            assert b"millrace_retry_total{" not in (await ask(gateway, get("/metrics"))).body

    run(scenario())


def test_an_engine_that_is_down_is_left_alone_and_used_again_when_it_is_back() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as first, FakeEngine("b") as second, gateway_for(first, second) as gateway:
            await first.stop()
            for _ in range(4):
                assert (await ask(gateway, chat())).fields["x-engine"] == "b"
            await until(lambda: gateway.fleet.ready == 1, "the engine is known to be down")
            assert (await ask(gateway, get("/readyz"))).json["replicas"] == {"a": "gone", "b": "ready"}
            await first.start()
            await until(lambda: gateway.fleet.ready == 2, "the engine is known to be back")
            engines = {(await ask(gateway, chat())).fields["x-engine"] for _ in range(4)}
            assert engines == {"a", "b"}

    run(scenario())


def test_with_every_engine_down_requests_wait_for_one_to_come_back() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            await engine.stop()
            await until(lambda: not gateway.fleet.ready, "the engine is known to be down")
            assert (await ask(gateway, get("/readyz"))).status == 503
            await one.say(chat())
            await until(lambda: gateway.exchanges, "the request is held")
            assert b"millrace_flow_control_queue_size{} 1.0" in (await ask(gateway, get("/metrics"))).body
            await engine.start()
            assert (await one.answer()).status == 200

    run(scenario())


def test_a_held_request_is_refused_when_its_patience_ends() -> None:
    async def scenario() -> None:
        async with one_engine(mind=controller(max_hold_s=0.1)) as (engine, gateway):
            await engine.stop()
            await until(lambda: not gateway.fleet.ready, "the engine is known to be down")
            answer = await ask(gateway, chat())
            assert (answer.status, answer.json["error"]["code"]) == (503, "service_unavailable")
            assert 1 <= int(answer.fields["retry-after"]) <= 120
            assert int(answer.fields["retry-after-ms"]) >= 1000

    run(scenario())


def test_an_engine_that_says_it_is_unwell_gets_no_requests() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as first, FakeEngine("b") as second, gateway_for(first, second) as gateway:
            first.healthy = False
            await until(lambda: gateway.fleet.ready == 1, "the engine is known to be unwell")
            assert {(await ask(gateway, chat())).fields["x-engine"] for _ in range(4)} == {"b"}

    run(scenario())


def test_a_head_without_end_is_garbage() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            engine.script = Script(raw=b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000)
            assert (await ask(gateway, chat())).status == 502

    run(scenario())


def test_embeddings_pass_and_fail_over_too() -> None:
    async def scenario() -> None:
        script = Script(status=503)
        async with (
            FakeEngine("a", script=script) as bad,
            FakeEngine("b") as good,
            gateway_for(bad, good) as gateway,
        ):
            for _ in range(2):
                answer = await ask(gateway, post(b'{"model":"m","input":["x"]}', path="/v1/embeddings"))
                assert answer.json["data"][0]["embedding"] == [0.5] * 3

    run(scenario())
