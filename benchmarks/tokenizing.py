"""What it takes to know a prompt's tokens: here, and by asking an engine; and how long others wait for that.

python benchmarks/tokenizing.py
"""

from __future__ import annotations

import asyncio
import platform
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import aiohttp
import msgspec

from millrace.data import demo_model
from millrace.engine.tokenizing import PromptTokenizer
from millrace.launch import Process
from millrace.launch.commands import engine_command

ROUNDS = 30
TICK_S = 0.001
SOURCE = Path(asyncio.__file__).with_name("tasks.py")

Ask = Callable[[bytes], Awaitable[object]]


async def main() -> None:
    """Measure and print."""
    here = PromptTokenizer.load(demo_model())
    with tempfile.TemporaryDirectory() as folder:
        engine = Process(
            "engine", engine_command("demo", options=("--max-model-len", "2048")), Path(folder) / "engine.log"
        )
        await engine.start(within_s=120.0)
        try:
            async with aiohttp.ClientSession() as session:

                async def there(question: bytes) -> object:
                    async with session.post(f"{engine.url}/tokenize", data=question) as answer:
                        return await answer.read()

                await _compare(here, there)
        finally:
            await engine.stop()


async def _compare(here: PromptTokenizer, there: Ask) -> None:
    print(f"Python {platform.python_version()}, the demo model's tokenizer, {ROUNDS} prompts each; medians")
    print("    tokens       here  an engine    others wait, here")
    for wanted in (100, 1_000, 2_000, 20_000):
        questions = await _questions(here, wanted)
        own_s, waits_s = await _took(here.tokens_of, questions)
        asked_s, _ = await _took(there, questions)
        print(f"{wanted:10} {own_s * 1e3:7.2f} ms {asked_s * 1e3:7.2f} ms {waits_s * 1e3:17.2f} ms")


async def _questions(here: PromptTokenizer, wanted: int) -> list[bytes]:
    """Chats of about so many tokens, no two of which begin alike."""
    code = SOURCE.read_text() * 40
    tokens = len(await here.tokens_of(_question(code[:20_000])) or ())
    size = round(20_000 * wanted / tokens)
    return [_question(f"{n} {code[n * 997 :][:size]}") for n in range(ROUNDS)]


def _question(content: str) -> bytes:
    return msgspec.json.encode({"model": "demo", "messages": [{"role": "user", "content": content}]})


async def _took(ask: Ask, questions: list[bytes]) -> tuple[float, float]:
    """Seconds for each question, and how late the event loop was at worst meanwhile; medians."""
    times, waits = [], []
    for question in questions:
        ticking = asyncio.create_task(_latest())
        await asyncio.sleep(TICK_S)
        began_s = perf_counter()
        await ask(question)
        times.append(perf_counter() - began_s)
        await asyncio.sleep(2 * TICK_S)
        ticking.cancel()
        waits.append(await ticking)
    return median(times), median(waits)


async def _latest() -> float:
    """How late ticks came at worst, until told to end."""
    worst_s = 0.0
    try:
        while True:
            due_s = perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            worst_s = max(worst_s, perf_counter() - due_s)
    except asyncio.CancelledError:
        return worst_s


if __name__ == "__main__":
    asyncio.run(main())
