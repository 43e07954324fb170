"""A model that cannot answer leaves its requests to another, whose engine hears its own name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from millrace.control.log import replay
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.test_sdk import MESSAGES, client_of
from tests.integration.gateway.world import ask, chat, controller, gateway_for, get, run, until

CHAIN = {"llama": ("qwen",)}


def two() -> tuple[FakeEngine, FakeEngine]:
    """An engine for each of two models."""
    return FakeEngine("a", models=("llama",)), FakeEngine("b", models=("qwen",))


@pytest.mark.parametrize("script", [Script(breaks="reset"), Script(status=503)])
def test_a_model_whose_engine_fails_leaves_its_requests_to_the_fallback(script: Script) -> None:
    async def scenario() -> None:
        llama, qwen = two()
        async with llama, qwen, gateway_for(llama, qwen, fallbacks=CHAIN) as gateway:
            llama.script = script
            async with client_of(gateway) as client:
                raw = await client.chat.completions.with_raw_response.create(model="llama", messages=MESSAGES)
                assert raw.headers["x-millrace-model"] == "qwen"
                assert raw.headers["x-millrace-replica"] == "b"
                assert raw.parse().model == "llama"
                stream = await client.chat.completions.create(model="llama", messages=MESSAGES, stream=True)
                assert {chunk.model async for chunk in stream} == {"llama"}
            assert [heard.json["model"] for heard in qwen.heard] == ["qwen", "qwen"]
            assert {heard.json["model"] for heard in llama.heard} == {"llama"}
            page = (await ask(gateway, get("/metrics"))).body.decode()
            assert 'millrace_request_total{model="qwen",replica="b",outcome="ok"} 2.0' in page
            assert 'millrace_fallback_total{model="qwen"} 2.0' in page

    run(scenario())


def test_a_model_without_a_ready_engine_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        llama, qwen = two()
        aliases, log = {"chat": "llama"}, tmp_path / "events.jsonl"
        async with (
            llama,
            qwen,
            gateway_for(
                llama, qwen, fallbacks=CHAIN, aliases=aliases, event_log=log, mind=controller(max_hold_s=60.0)
            ) as gateway,
        ):
            await llama.stop()
            await until(lambda: gateway.fleet.ready == 1, "the first engine is known to be down")
            answer = await ask(gateway, chat(model="chat"))
            assert (answer.status, answer.json["model"]) == (200, "chat")
            assert answer.fields["x-millrace-model"] == "qwen"
            assert qwen.heard[0].json["model"] == "qwen"
        lines = log.read_bytes().splitlines(keepends=True)
        arrived = next(msgspec.json.decode(line) for line in lines if b"Arrived" in line)
        assert arrived["event"]["request"]["model"] == "llama"
        assert arrived["event"]["request"]["fallbacks"] == ["qwen"]
        assert arrived["actions"][0]["model"] == "qwen"
        found = replay(lines)
        assert found.identical == found.actions

    run(scenario())


def test_a_chain_whose_every_model_fails_ends_with_the_last_engines_word() -> None:
    async def scenario() -> None:
        llama, qwen = two()
        async with llama, qwen, gateway_for(llama, qwen, fallbacks=CHAIN) as gateway:
            llama.script, qwen.script = Script(status=502), Script(status=503)
            answer = await ask(gateway, chat(model="llama"))
            assert answer.status == 503
            assert (len(llama.heard), len(qwen.heard)) == (3, 3)

    run(scenario())


def test_a_model_that_begun_to_answer_is_never_replaced() -> None:
    async def scenario() -> None:
        llama, qwen = two()
        async with llama, qwen, gateway_for(llama, qwen, fallbacks=CHAIN) as gateway:
            llama.script = Script(breaks="reset", break_after=1)
            answer = await ask(gateway, chat(model="llama", stream=True))
            assert "error" in answer.events[-1]
            assert not qwen.heard

    run(scenario())
