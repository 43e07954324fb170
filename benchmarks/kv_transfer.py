"""How fast KV caches move between two engine processes, and what a client notices of it.

python benchmarks/kv_transfer.py [--model FOLDER] [--streams N] [--tokens N] [--out FILE]

Two engines, and a gateway in this process; each stream is moved once while it runs. Prints the bytes per
second of the transfer by itself (a prompt's cache, fetched by another engine, less the time of a short one),
the longest gap between two tokens of a stream that moved, and of the same streams undisturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from millrace.control import Controller
from millrace.core.fleet import FleetView, Shift
from millrace.gateway.server import listening
from millrace.gateway.settings import GatewaySettings
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin


class Once:
    """Moves each stream to the other engine when it is told to."""

    period_s = 0.01

    def __init__(self) -> None:
        self.go = False

    def rebalance(self, fleet: FleetView) -> Iterator[Shift]:
        going, self.go = self.go, False
        for name, flight in fleet.flights.items() if going else ():
            if flight.started and flight.moving_to is None:
                yield Shift(name, "b" if flight.replica == "a" else "a")


@contextmanager
def engine(model: str) -> Iterator[str]:
    """A process that serves the model and has a KV port; its URL."""
    argv = [sys.executable, "-m", "millrace", "engine", "--model", model, "--threads", "1"]
    process = subprocess.Popen([*argv, "--port", "0", "--kv-port", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        yield next(line.split()[1] for line in process.stderr if line.startswith("ready "))
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


async def transfer(session: aiohttp.ClientSession, source: str, target: str, prompt: list[int]) -> float:
    """Seconds that an answer of one token takes whose prompt's cache comes from the other engine."""
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
    asked = body | {"kv_transfer_params": {"do_remote_decode": True}}
    async with session.post(f"{source}/v1/completions", json=asked) as response:
        params = (await response.json())["kv_transfer_params"]
    began_s = time.perf_counter()
    async with session.post(
        f"{target}/v1/completions", json=body | {"kv_transfer_params": params}
    ) as response:
        assert response.status == 200, await response.text()
        await response.read()
    return time.perf_counter() - began_s


async def rate(source: str, target: str, block_bytes: int, *, tokens: int = 1600) -> float:
    """Bytes per second, from the median of a few long prompts less that of a few short ones."""
    async with aiohttp.ClientSession() as session:
        seconds: dict[int, list[float]] = {tokens: [], 17: []}
        for number in range(7):
            for length, found in seconds.items():
                prompt = [1000 + number * 7 + length % 13, *range(300, 299 + length)]
                found.append(await transfer(session, source, target, prompt))
    lasted_s = median(seconds[tokens]) - median(seconds[17])
    return (tokens // 16 - 1) * block_bytes / lasted_s


async def stream(session: aiohttp.ClientSession, url: str, number: int, tokens: int) -> list[float]:
    """When each event of a stream came."""
    body = {
        "model": "demo",
        "prompt": f"def function_{number}(",
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    async with session.post(f"{url}/v1/completions", json=body) as response:
        return [time.perf_counter() async for line in response.content if line.startswith(b"data: {")]


async def gaps(backends: tuple[str, ...], streams: int, tokens: int) -> dict[str, Any]:
    """The gaps between tokens, undisturbed and with one move in the middle."""
    once = Once()
    settings = GatewaySettings(backends=backends, port=0)
    mind = Controller(RoundRobin(), Fcfs(), migration=once)
    found: dict[str, Any] = {}
    async with listening(settings, mind) as gateway, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{gateway.port}"
        for name in ("undisturbed", "moved"):
            playing = [asyncio.create_task(stream(session, url, n, tokens)) for n in range(streams)]
            if name == "moved":
                while sum(exchange.committed for exchange in gateway.exchanges.values()) < streams:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.3)
                once.go = True
            came = await asyncio.gather(*playing)
            each = [[b - a for a, b in pairwise(one)] for one in came]
            found[name] = {
                "gap_median_s": median(gap for one in each for gap in one),
                "longest_gap_median_s": median(max(one) for one in each),
                "longest_gap_s": max(max(one) for one in each),
            }
        found["moves"] = dict(gateway.metrics.moves)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--block-bytes", type=int, help="of all layers; the demo model's if left out")
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    with engine(said.model) as a, engine(said.model) as b:
        found = asyncio.run(gaps((f"a={a}", f"b={b}"), said.streams, said.tokens))
        found["bytes_per_s"] = asyncio.run(rate(a, b, said.block_bytes or demo_block_bytes()))
    text = json.dumps(found, indent=2)
    print(text)
    if said.out:
        said.out.write_text(text + "\n")


def demo_block_bytes() -> int:
    """What 16 tokens of the demo model take in float32."""
    from millrace.data import demo_model

    config = json.loads((demo_model() / "config.json").read_bytes())
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(config["num_hidden_layers"] * 2 * heads * size * 16 * 4)


if __name__ == "__main__":
    main()
