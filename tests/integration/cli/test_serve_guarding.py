"""`millrace serve` guards against answers that run on, if it is told to."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI

from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.cli.test_serve import page, served

WORDS = ("--overflow-guard", "cap,remind,long=20,evidence=2,remembered=4", "--overflow-reminder", "Be brief.")


def test_the_options_cap_and_remind() -> None:
    async def scenario() -> None:
        async with FakeEngine("a", script=Script(tokens=30)) as engine:
            async with served("--backend", engine.url, *WORDS) as urls:
                async with AsyncOpenAI(base_url=f"{urls['ready']}/v1", api_key="none") as client:
                    for _ in range(3):
                        found = await client.chat.completions.with_raw_response.create(
                            model="m", messages=[{"role": "user", "content": "hi"}], user="endless"
                        )
                _, metrics = await page(f"{urls['ready']}/metrics")
            assert found.headers["x-millrace-max-tokens"] == "20"
            sent = engine.heard[-1].json
            assert (sent["max_tokens"], sent["messages"][0]["content"]) == (20, "hi\n\nBe brief.")
            assert 'millrace_overflow_capped_total{model="m"} 1.0' in metrics

    asyncio.run(scenario())
