"""`millrace serve` predicts answers, keeps what wordings are like, and can send one request at a time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from openai import AsyncOpenAI

from millrace.control.log import Recording
from millrace.core.event import Arrived, Dispatch, Finished
from millrace.core.lexical import lexical
from millrace.core.synthetic.instructions import instructions
from millrace.core.trace import TraceRecord
from millrace.predictor import write_document
from millrace.predictor.training import Training, train
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.cli.saying import Run
from tests.integration.cli.test_serve import served

SHORT = "Who came up with the tides? Answer briefly."
LONG = "Write an essay on the tides and sourdough, their history, and what came of them."


def made_up(count: int) -> list[TraceRecord]:
    """Return what a log would keep of made-up instructions, one a second."""
    return [
        TraceRecord(
            id=str(n),
            t_s=float(n),
            input_tokens=9,
            output_tokens=one.answer_tokens,
            lexical=lexical(one.text),
        )
        for n, one in enumerate(instructions(count))
    ]


def predictor(folder: Path) -> Path:
    """Train one on made-up instructions."""
    write_document(train(made_up(300), Training(rounds=10)), folder / "p.json")
    return folder / "p.json"


async def ask(client: AsyncOpenAI, text: str) -> None:
    """Ask for a chat."""
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


def test_a_serial_engine_gets_one_at_a_time_and_the_shortest_answers_first(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"

    async def scenario() -> None:
        async with FakeEngine("a", script=Script(ttft_s=0.3)) as engine:
            words = (
                "--backend",
                engine.url,
                "--predictor",
                str(predictor(tmp_path)),
                "--event-log",
                str(log),
            )
            async with served(*words, "--serial", "--log-features", "--drain", "5") as urls:
                base_url = urls["ready"] + "/v1"
                async with AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
                    await asyncio.gather(*(ask(client, text) for text in (LONG, LONG, LONG, SHORT, SHORT)))

    asyncio.run(scenario())
    with log.open("rb") as lines:
        recording = Recording(lines)
        entries = [entry for _, entry in recording]
    assert recording.header.queueing.policy == "clairvoyant"
    assert recording.header.settings.max_hold_s == 600
    assert recording.header.settings.rules.starvation_s is None
    asked = {e.event.request.id: e.event.request for e in entries if isinstance(e.event, Arrived)}
    sent = [asked[a.request_id] for e in entries for a in e.actions if isinstance(a, Dispatch)]
    assert {one.lexical for one in sent} == {lexical(SHORT), lexical(LONG)}
    lengths = [one.predicted.tokens for one in sent[1:] if one.predicted]  # whoever came first did not wait
    assert len(lengths) == 4
    assert lengths == sorted(lengths)
    under_way = 0
    for entry in entries:
        under_way += sum(isinstance(a, Dispatch) for a in entry.actions) - isinstance(entry.event, Finished)
        assert under_way <= 1


def test_a_predictor_that_is_not_there_is_missed_and_nobody_is_the_worse_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            words = ("--backend", engine.url, "--predictor", str(tmp_path / "gone.json"), "--serial")
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "millrace", "serve", "--port", "0", *words),
                stderr=asyncio.subprocess.PIPE,
            )
            assert child.stderr is not None
            assert b"warning: there is no predictor" in await child.stderr.readline()
            url = (await child.stderr.readline()).decode().removeprefix("ready ").strip()
            async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
                await asyncio.gather(*(ask(client, SHORT) for _ in range(3)))
            child.terminate()
            assert await child.wait() == 0

    asyncio.run(asyncio.wait_for(scenario(), 90))


def test_a_file_that_is_no_predictor_is_an_error(millrace: Run, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("{}")
    said = millrace("serve", "--backend", "http://127.0.0.1:1", "--predictor", str(tmp_path / "p.json"))
    assert said.code == 2
    assert "is no predictor that can be used: its schema is ''" in said.err
