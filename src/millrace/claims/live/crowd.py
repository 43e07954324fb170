"""A crowd in front of one real engine that answers one request at a time, under one order after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from msgspec import Struct

from millrace.control.log import Recording
from millrace.core.event import Arrived, Dispatch, Finished
from millrace.core.synthetic.instructions import Instruction
from millrace.launch import Fleet, Front, engine_command, gateway_command

TIMEOUT_S = 300.0


class Answered(Struct, frozen=True, kw_only=True):
    """A request as its client saw it, `latency_s`, and as the gateway did: held, then with the engine."""

    tokens: int
    latency_s: float
    waited_s: float
    served_s: float


async def crowd(
    asked: Sequence[Instruction], predictor: Path, folder: Path
) -> tuple[list[Answered], list[Answered], float]:
    """Ask everything at once, first come first served, then by a predictor with a patience of half that time.

    Return the answers to both, in order of arrival, and the patience in seconds.
    """
    engine = engine_command("demo", threads=1, options=("--max-num-seqs", "1", "--no-prefix-caching"))
    first = _gateway(folder / "fcfs.jsonl", "--queueing", "fcfs")
    async with Fleet(engines=[engine], gateway=first, run_dir=folder) as fleet:
        await _ask_all(fleet.engines[0].url, asked[:2])  # who is first finds everything cold
        plain = await _answers(fleet, asked, folder / "fcfs.jsonl")
        patience_s = max(one.latency_s for one in plain) / 2
        order = f"clairvoyant(patience_s={patience_s!r})"
        log = folder / "predicted.jsonl"
        await fleet.switch_gateway(_gateway(log, "--queueing", order, "--predictor", str(predictor)))
        return plain, await _answers(fleet, asked, log), patience_s


async def _answers(fleet: Fleet, asked: Sequence[Instruction], log: Path) -> list[Answered]:
    latencies_s = await _ask_all(fleet.gateway.url, asked)
    await fleet.gateway.stop()  # which writes the rest of its log
    return _answered(asked, latencies_s, log)


def _gateway(log: Path, *options: str) -> Front:
    return gateway_command(routing="least_request", event_log=log, options=("--serial", *options))


async def _ask_all(url: str, asked: Sequence[Instruction]) -> list[float]:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        return await asyncio.gather(
            *(_ask(session, url, one, f"i{number}") for number, one in enumerate(asked))
        )


async def _ask(session: aiohttp.ClientSession, url: str, one: Instruction, name: str) -> float:
    """Ask for an answer of exactly so many tokens; return how long it took."""
    body = {"model": "demo", "prompt": one.text, "max_tokens": one.answer_tokens, "ignore_eos": True}
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with session.post(f"{url}/v1/completions", json=body, headers={"x-request-id": name}) as response:
        response.raise_for_status()
        await response.read()
    return loop.time() - began_s


def _answered(asked: Sequence[Instruction], latencies_s: Sequence[float], log: Path) -> list[Answered]:
    arrived_s: dict[str, float] = {}
    sent_s: dict[str, float] = {}
    ended_s: dict[str, float] = {}
    with log.open("rb") as lines:
        for _, entry in Recording(lines):
            event = entry.event
            if isinstance(event, Arrived):
                arrived_s[event.request.id] = event.now_s
            elif isinstance(event, Finished):
                ended_s[event.request_id] = event.now_s
            sent_s |= {one.request_id: event.now_s for one in entry.actions if isinstance(one, Dispatch)}
    return [
        Answered(
            tokens=asked[int(name[1:])].answer_tokens,
            latency_s=latencies_s[int(name[1:])],
            waited_s=sent_s[name] - came_s,
            served_s=ended_s[name] - sent_s[name],
        )
        for name, came_s in arrived_s.items()
    ]
