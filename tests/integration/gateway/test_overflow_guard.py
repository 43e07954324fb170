"""A gateway that guards against answers that run on, over real sockets."""

from __future__ import annotations

import json
from typing import Any

from millrace.core.overflow import GuardSettings
from millrace.gateway import GatewaySettings, Guarding
from millrace.gateway.server import listening
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Heard, Script
from tests.integration.gateway.world import Answer, Caller, caller, chat, controller, get, post, run

SETTINGS = GuardSettings(
    caps=True, reminds=True, long_tokens=20, evidence=3, remembered=6, floor_tokens=2, reminder="Be brief."
)


async def as_long_as_asked(heard: Heard) -> Script:
    """Answer as long as it is let, or 40 tokens; "hello" gets 4."""
    body = json.loads(heard.body)
    wanted = 4 if body["messages"][-1]["content"].startswith("hello") else 40
    return Script(tokens=min(wanted, body.get("max_tokens", wanted)))


async def ask(client: Caller, text: str, tenant: str, **fields: Any) -> Answer:
    found = await client.ask(chat(messages=[{"role": "user", "content": text}], user=tenant, **fields))
    assert found.status == 200
    return found


def test_answers_that_run_on_are_capped_and_said_to_be() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            engine.gate = as_long_as_asked
            settings = GatewaySettings(backends=(engine.url,), port=0, scrape_s=0.05)
            guarding = Guarding(SETTINGS)
            async with (
                listening(settings, controller(), guarding=guarding) as gateway,
                caller(gateway) as client,
            ):
                for stream in (False, True, False):
                    first = await ask(client, "hello", "brief", stream=stream)
                    await ask(client, "go on for ever", "endless", stream=stream)
                    assert "x-millrace-max-tokens" not in first.fields
                capped = await ask(client, "go on for ever", "endless", max_tokens=4096)
                assert capped.fields["x-millrace-max-tokens"] == "6"
                assert capped.fields["x-millrace-reminder"] == "appended"
                assert capped.json["usage"]["completion_tokens"] == 6
                sent = json.loads(engine.heard[-1].body)
                assert sent["max_tokens"] == 6
                assert sent["messages"][-1]["content"] == "go on for ever\n\nBe brief."
                streamed = await ask(client, "go on for ever", "endless", stream=True)
                assert streamed.fields["x-millrace-max-tokens"] == "6"
                brief = await ask(client, "go on for ever", "brief", max_tokens=30)
                assert "x-millrace-max-tokens" not in brief.fields
                assert json.loads(engine.heard[-1].body)["max_tokens"] == 30
                page = (await client.ask(get("/metrics"))).body.decode().splitlines()
        assert 'millrace_overflow_capped_total{model="m"} 2.0' in page
        assert 'millrace_overflow_cut_total{model="m"} 2.0' in page
        assert 'millrace_overflow_reminded_total{model="m"} 2.0' in page
        assert 'millrace_tenant_overflows{model="m",tenant="endless"} 1.0' in page
        assert any(
            line.startswith('millrace_cap_saturation_ratio{model="m",prompts="other"') for line in page
        )
        assert 'millrace_overflow_tokens_total{model="m",tenant="brief"} 26.0' in page

    run(scenario())


def test_what_has_no_answer_to_cap_passes_unread() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            settings = GatewaySettings(backends=(engine.url,), port=0, scrape_s=0.05)
            guarding = Guarding(SETTINGS)
            async with (
                listening(settings, controller(), guarding=guarding) as gateway,
                caller(gateway) as client,
            ):
                body = b'{"model":"m","input":"hi"}'
                await client.ask(post(body, path="/v1/embeddings"))
                assert engine.heard[-1].body == body
        assert not guarding.guard.classes

    run(scenario())
