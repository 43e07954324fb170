"""Two engines of SGLang get a request at once, meet in its room, and one of them answers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from millrace.control import Controller
from millrace.core.replica import ReplicaSpec
from millrace.gateway.handing import Bootstrap
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.disaggregated import Policy as Disaggregated
from millrace.testing.script import Script
from tests.integration.gateway.sglang import PORT, engines, missed, streamed_error, whole_error
from tests.integration.gateway.world import Answer, ask, caller, chat, gateway_for, post, run, until

ENDLESS = Script(tokens=10_000, tpot_s=0.01)


def mind() -> Controller:
    return Controller(Disaggregated(local_below_tokens=0), Fcfs())


def text(prompt: Any, **fields: Any) -> bytes:
    return post(json.dumps({"model": "m", "prompt": prompt, **fields}).encode(), path="/v1/completions")


def said(answer: Answer) -> int:
    """How many tokens an answer has; those of the engine that computes prompts are longer than any."""
    assert answer.status == 200, answer.body
    assert b"xxxxx" not in answer.body
    return len(answer.events) - 1 if answer.events else answer.json["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_pair_gets_the_same_request_and_one_of_it_answers(stream: bool) -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (rooms, both), gateway_for(*both, mind=mind()) as gateway:
            asked = [(text if n % 2 else _chat)(f"number {n}", stream=stream, max_tokens=3) for n in range(8)]
            answers = await asyncio.gather(*(ask(gateway, one) for one in asked))
            assert [said(answer) for answer in answers] == [3] * 8
            assert {answer.fields["x-millrace-replica"] for answer in answers} == {"d"}
            assert len(rooms.bodies) == 8
            for bodies in rooms.bodies.values():
                assert bodies["prefill"] == bodies["decode"]
            assert [len(one.heard) for one in both] == [8, 8]
            assert [one.aborted for one in both] == [0, 0]
            assert gateway.metrics.retries == Counter()

    run(scenario())


def _chat(content: str, **fields: Any) -> bytes:
    return chat(messages=[{"role": "user", "content": content}], **fields)


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (text(["one", "two", "three"]), 3),
        (text([[1, 2], [3, 4]]), 2),
        (text([1, 2, 3]), None),
        (text("one", n=2), None),
        (_chat("one", n=2), 2),
        (_chat("one", n=1), None),
    ],
)
def test_what_is_several_requests_gets_as_many_rooms(request_: bytes, count: int | None) -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (rooms, both), gateway_for(*both, mind=mind()) as gateway:
            assert (await ask(gateway, request_)).status == 200
            told = both[0].heard[0].json
            lists = [isinstance(told[f"bootstrap_{name}"], list) for name in ("host", "port", "room")]
            assert lists == [count is not None] * 3
            assert len(rooms.bodies) == (count or 1)

    run(scenario())


FAILURES = {
    "status_500": whole_error("Prefill transfer failed", 500),
    "status_503": Script(status=503),
    "reset": Script(breaks="reset"),
    "garbage": Script(breaks="garbage"),
    "no_kv_cache": streamed_error("Prefill bootstrap failed", 500),
}


@pytest.mark.parametrize("reason", FAILURES)
def test_a_prompt_that_cannot_be_computed_is_computed_elsewhere(reason: str) -> None:
    async def scenario() -> None:
        async with engines("p1", "p2", "d") as (rooms, (p1, p2, d)):
            p1.script = FAILURES[reason]
            async with gateway_for(p1, p2, d, mind=mind()) as gateway:
                for _ in range(20):
                    assert said(await ask(gateway, chat(stream=True))) == 3
                    if p1.heard:
                        break
                assert gateway.metrics.retries == Counter({reason: 1})
                assert len(d.heard) == len(rooms.bodies) == len(p2.heard) + 1
                await until(lambda: d.aborted == 1, "the engine that waited was told to stop")

    run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_a_cache_that_did_not_come_is_asked_for_again(stream: bool) -> None:
    async def scenario() -> None:
        async with engines("p", "d1", "d2") as (_, (p, d1, d2)):
            d1.script = streamed_error(missed(), 500) if stream else whole_error(missed(), 500)
            async with gateway_for(p, d1, d2, mind=mind()) as gateway:
                for _ in range(20):
                    answer = await ask(gateway, chat(stream=stream))
                    assert said(answer) == 3
                    assert answer.fields["x-millrace-replica"] == "d2"
                    if d1.heard:
                        break
                assert gateway.metrics.retries.total() == 1

    run(scenario())


@pytest.mark.parametrize("who", ["p", "d"])
def test_what_the_request_did_wrong_is_the_clients_to_hear(who: str) -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (_, both):
            named = {one.name: one for one in both}
            named[who].script = whole_error("too long", 400)
            async with gateway_for(*both, mind=mind()) as gateway:
                answer = await ask(gateway, chat(stream=True))
                assert (answer.status, answer.json["message"]) == (400, "too long")
                assert answer.fields["x-millrace-replica"] == who
                await until(lambda: [one.live for one in both] == [0, 0], "nobody works on it")
                assert gateway.metrics.retries == Counter()

    run(scenario())


def test_what_both_find_wrong_with_a_request_is_told_by_the_one_that_answers() -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (_, (p, d)):
            p.script = streamed_error("too long", 400)
            d.script = whole_error("too long", 400)
            async with gateway_for(p, d, mind=mind()) as gateway:
                answer = await ask(gateway, chat(stream=True))
                assert (answer.status, answer.fields["x-millrace-replica"]) == (400, "d")

    run(scenario())


def test_a_crash_of_the_engine_that_answers_is_not_tried_again() -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (_, (p, d)):
            d.script = whole_error("out of memory", 500)
            async with gateway_for(p, d, mind=mind()) as gateway:
                assert (await ask(gateway, chat())).status == 500
                assert len(d.heard) == 1

    run(scenario())


def test_when_all_fails_the_client_hears_an_engines_words() -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (_, (p, d)):
            p.script = whole_error("Prefill transfer failed", 500)
            async with gateway_for(p, d, mind=mind()) as gateway:
                answer = await ask(gateway, chat())
                assert (answer.status, answer.json["message"]) == (500, "Prefill transfer failed")
                assert len(p.heard) == 3

    run(scenario())


def test_an_engine_that_is_gone_before_it_answers_is_replaced() -> None:
    async def scenario() -> None:
        async with engines("p", "d1", "d2") as (_, (p, d1, d2)):
            d1.script = Script(breaks="reset")
            async with gateway_for(p, d1, d2, mind=mind()) as gateway:
                for _ in range(20):
                    assert said(await ask(gateway, chat(stream=True))) == 3
                    if d1.heard:
                        break
                assert gateway.metrics.retries == Counter(reset=1)

    run(scenario())


def test_a_client_that_leaves_frees_both() -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (rooms, (p, d)):
            p.script = Script(ttft_s=100)
            d.script = ENDLESS
            async with gateway_for(p, d, mind=mind()) as gateway:
                async with caller(gateway) as client:
                    await client.say(chat(stream=True))
                    await until(lambda: rooms.computed, "the two have met")
                await until(lambda: (p.aborted, d.aborted) == (1, 1), "both were told to stop")
                assert not gateway.exchanges

    run(scenario())


def test_who_computed_a_prompt_may_go_once_the_answer_has_begun() -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (_, (p, d)):
            p.script = Script(ttft_s=100)
            d.script = Script(tokens=30, tpot_s=0.01)
            async with gateway_for(p, d, mind=mind()) as gateway:
                async with caller(gateway) as client:
                    await client.say(chat(stream=True))
                    await until(lambda: any(one.committed for one in gateway.exchanges.values()), "it begins")
                    await p.stop()
                    assert said(await client.answer()) == 30
                assert gateway.metrics.retries == Counter()

    run(scenario())


def test_without_one_that_computes_prompts_nobody_is_asked_to_answer() -> None:
    async def scenario() -> None:
        async with engines("p", "d") as (_, (p, d)), gateway_for(p, d, mind=mind()) as gateway:
            await p.stop()
            await until(lambda: gateway.fleet.members["p"].phase == "gone", "it is gone")
            answer = await ask(gateway, chat())
            assert answer.status == 502
            assert "compute no prompts" in answer.json["error"]["message"]
            assert d.heard == []

    run(scenario())


def test_engines_that_do_not_say_what_they_are_can_be_declared() -> None:
    async def scenario() -> None:
        roles = {"p": ReplicaSpec(models=(), role="prefill"), "d": ReplicaSpec(models=(), role="decode")}
        met = {"p": Bootstrap("127.0.0.1", PORT)}
        async with (
            engines("p", "d", says=False) as (rooms, both),
            gateway_for(*both, mind=mind(), specs=roles, bootstraps=met) as gateway,
        ):
            assert said(await ask(gateway, chat(stream=True))) == 3
            assert len(rooms.bodies) == 1

    run(scenario())
