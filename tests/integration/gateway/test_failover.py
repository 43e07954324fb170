"""Streams whose engine breaks: they go on elsewhere if they can; if not, the client is told in the stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from millrace.control.log import replay
from millrace.gateway.app import Gateway
from millrace.gateway.resuming import Dialect
from tests.integration.gateway.replayer import TEXT, TOKENS, How, Replayer
from tests.integration.gateway.world import Answer, ask, controller, gateway_for, get, post, run, until

HALF = 1500  # bytes of an answer's body


class World(Struct):
    """Engines and what stands in front of them; `cuts` are shared."""

    gateway: Gateway
    engines: list[Replayer]
    cuts: list[int]

    @property
    def heard(self) -> list[tuple[str, dict[str, Any]]]:
        return [one for engine in self.engines for one in engine.heard]

    async def ask(self, *, path: str = "/v1/chat/completions", **fields: Any) -> Answer:
        prompt: dict[str, Any] = {"messages": []} if "chat" in path else {"prompt": "p"}
        body = {"model": "m", "stream": True, "max_tokens": len(TOKENS)} | prompt | fields
        return await ask(self.gateway, post(json.dumps(body).encode(), path=path))

    async def metric(self, line: str) -> bool:
        return line.encode() in (await ask(self.gateway, get("/metrics"))).body


@asynccontextmanager
async def world(
    *dialects: Dialect | None, cuts: list[int], how: How = "close", **options: Any
) -> AsyncIterator[World]:
    """As many engines as dialects."""
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(Replayer(name, dialect, cuts=cuts, how=how))
            for name, dialect in zip("abc", dialects, strict=False)
        ]
        yield World(await stack.enter_async_context(gateway_for(*engines, **options)), engines, cuts)


def text_of(answer: Answer) -> str:
    choices = [c for event in answer.events[:-1] for c in event.get("choices", ())]
    return "".join(choice.get("text", "") + choice.get("delta", {}).get("content", "") for choice in choices)


def is_whole(answer: Answer) -> bool:
    return answer.whole and text_of(answer) == TEXT and answer.events[-1] == "[DONE]"


def ends_with_an_error(answer: Answer) -> bool:
    return answer.whole and TEXT.startswith(text_of(answer)) and "error" in answer.events[-1]


@pytest.mark.parametrize("how", ["close", "stall", "end"])
def test_however_an_engine_breaks_another_one_goes_on(how: How) -> None:
    async def scenario() -> None:
        async with world("millrace", "millrace", cuts=[HALF], how=how, stall_timeout_s=0.3) as one:
            assert is_whole(await one.ask())
            assert [("resume" in body) for _, body in one.heard] == [False, True]
            assert await one.metric('millrace_stream_resumed_total{how="elsewhere"} 1.0')

    run(scenario())


def test_an_engine_that_falls_silent_and_is_unwell_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with world("millrace", "millrace", cuts=[HALF], how="stall", unwell_timeout_s=0.2) as one:
            asking = asyncio.create_task(one.ask())
            await until(lambda: one.heard, "an engine is asked")
            for engine in one.engines:
                engine.well = not engine.heard
            assert is_whole(await asking)
            assert [("resume" in body) for _, body in one.heard] == [False, True]

    run(scenario())


def test_a_stream_that_lacks_only_its_end_gets_it_from_the_gateway() -> None:
    async def scenario() -> None:
        async with world("millrace", cuts=[]) as one:
            body = {"model": "m", "stream": True, "max_tokens": len(TOKENS), "return_token_ids": True}
            whole = len(one.engines[0].body_bytes("/v1/chat/completions", body))
            one.cuts.append(whole - 20)
            assert is_whole(await one.ask(return_token_ids=True))
            assert await one.metric('millrace_stream_resumed_total{how="concluded"} 1.0')

    run(scenario())


def test_the_second_engine_may_die_as_well_and_the_third_goes_on() -> None:
    async def scenario() -> None:
        async with world("millrace", "millrace", "millrace", cuts=[HALF, HALF // 2]) as one:
            assert is_whole(await one.ask())
            had = [len(body["resume"]["token_ids"]) for _, body in one.heard if "resume" in body]
            assert len(had) == 2
            assert had[0] != had[1]

    run(scenario())


@pytest.mark.parametrize(
    "dialects",
    [("millrace",), ("millrace", None), ("millrace",) * 3, ("vllm", None, None)],
)
def test_when_nobody_can_go_on_the_client_is_told_in_the_stream(
    dialects: tuple[Dialect | None, ...],
) -> None:
    async def scenario() -> None:
        mind = controller(max_hold_s=0.2)
        async with world(*dialects, cuts=[HALF] * 3, mind=mind) as one:
            one.cuts[1:] = [1, 1]
            assert ends_with_an_error(await one.ask())
            await until(lambda: not one.gateway.exchanges, "the request ended")

    run(scenario())


def test_engines_that_cannot_go_on_are_passed_over() -> None:
    async def scenario() -> None:
        async with world("millrace", None, "millrace", cuts=[HALF]) as one:
            for _ in range(3):
                one.cuts[:] = [HALF]
                answer = await one.ask()
                assert is_whole(answer) or ends_with_an_error(answer)
            resumed = [engine.name for engine in one.engines for _, b in engine.heard if "resume" in b]
            assert resumed
            assert "b" not in resumed

    run(scenario())


def test_an_engine_that_refuses_to_go_on_is_left_for_another() -> None:
    async def scenario() -> None:
        async with world("millrace", "vllm", "millrace", cuts=[HALF]) as one:
            one.engines[1].refuses = one.engines[2].refuses = True
            assert ends_with_an_error(await one.ask())
            one.engines[1].refuses = False
            one.cuts.append(HALF)
            assert is_whole(await one.ask())

    run(scenario())


def test_an_answer_goes_on_under_the_name_that_the_client_used() -> None:
    async def scenario() -> None:
        async with world("millrace", "vllm", cuts=[HALF], aliases={"nick": "m"}) as one:
            answer = await one.ask(model="nick")
            assert is_whole(answer)
            assert {event["model"] for event in answer.events[:-1]} == {"nick"}

    run(scenario())


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (None, {}),
        ("millrace", {"n": 2}),
        ("millrace", {"best_of": 3}),
        ("vllm", {"stop": ["x"]}),
        ("vllm", {"presence_penalty": 0.5}),
        ("vllm", {"tools": [{"type": "function"}]}),
        ("vllm", {"response_format": {"type": "json_object"}}),
        ("vllm", {"logprobs": True}),
    ],
)
def test_what_cannot_go_on_is_sent_as_it_came(dialect: Dialect | None, fields: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with world(dialect, dialect, cuts=[HALF]) as one:
            assert ends_with_an_error(await one.ask(**fields))
            ((_, body),) = one.heard
            assert "return_token_ids" not in body

    run(scenario())


@pytest.mark.parametrize("options", [{"failover": False}, {"failover_bytes": 1}])
def test_without_failover_or_memory_for_it_nothing_is_asked_for(options: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with world("millrace", "millrace", cuts=[], **options) as one:
            one.gateway.remembered_bytes = 1
            one.cuts.append(HALF)
            assert ends_with_an_error(await one.ask())
            assert "return_token_ids" not in one.heard[0][1]

    run(scenario())


def test_a_client_that_wants_no_ids_gets_none() -> None:
    async def scenario() -> None:
        async with world("millrace", cuts=[]) as one:
            answer = await one.ask(return_token_ids=False)
            assert is_whole(answer)
            assert b"token_ids" not in answer.body
            assert one.heard[0][1]["return_token_ids"] is True

    run(scenario())


def test_what_was_decided_replays_to_the_letter(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = tmp_path / "events.jsonl"
        async with world("millrace", "vllm", "millrace", cuts=[HALF, 300], event_log=log) as one:
            assert is_whole(await one.ask())
        replayed = replay(log.read_bytes().splitlines(keepends=True))
        assert replayed.identical == replayed.actions == 3

    run(scenario())


def test_the_memory_of_streams_is_on_the_metrics_page() -> None:
    async def scenario() -> None:
        async with world("millrace", cuts=[]) as one:
            assert await one.metric("millrace_failover_bytes{} 0.0")

    run(scenario())
