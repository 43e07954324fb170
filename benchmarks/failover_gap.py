"""How long a stream falls silent when its engine is killed: real engines, real processes, real streams.

Every round starts three engines with the demo model and a gateway, lets greedy streams begin, and kills the
engine that answers a third of them with SIGKILL. The gap is the longest silence of a stream that went on
elsewhere: noticing, asking the policy, computing prompt and answer so far again, and the next token. Next to
it is the longest silence of the streams that were not hit, which have to share what is left.

    python benchmarks/failover_gap.py [--rounds 3] [--streams 9] [--json benchmarks/results/failover_gap.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic
from urllib.parse import urlsplit

from millrace.launch import Fleet, engine_command, gateway_command

LENGTH = 160
NAMES = ("one", "two", "three")


class Stream:
    """What one client sees, and when."""

    def __init__(self, number: int) -> None:
        self.body = {"model": "demo", "prompt": f"def task_{number}(", "max_tokens": LENGTH, "stream": True}
        self.body |= {"temperature": 0, "ignore_eos": True}
        self.replica = ""
        self.heard_s: list[float] = []
        self.whole = False

    def read(self, url: str) -> None:
        """Ask, and note every event until the end."""
        with asked(url, self.body) as answer:
            self.replica = answer.getheader("x-millrace-replica") or ""
            for line in answer:
                if line.startswith(b"data: {"):
                    self.heard_s.append(monotonic())
                self.whole |= line.startswith(b"data: [DONE]")

    @property
    def silence_s(self) -> float:
        """The longest time between two events."""
        return max(later - earlier for earlier, later in pairwise(self.heard_s))


@contextmanager
def asked(url: str, body: dict[str, object]) -> Iterator[HTTPResponse]:
    """A stream of a completion."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body))
        yield connection.getresponse()
    finally:
        connection.close()


async def round_of(streams: int) -> dict[str, float]:
    """Kill an engine in the middle of streams; return the silences in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        async with Fleet(
            engines=[engine_command("demo", options=("--kv-blocks", "512")) for _ in NAMES],
            gateway=gateway_command(routing="round_robin", names=NAMES),
            run_dir=Path(folder),
        ) as fleet:
            seen = [Stream(number) for number in range(streams)]
            reading = [asyncio.create_task(asyncio.to_thread(one.read, fleet.gateway.url)) for one in seen]
            await until(lambda: all(len(one.heard_s) > LENGTH // 8 for one in seen))
            await fleet.kill(fleet.engines[1])
            await asyncio.gather(*reading)
    if not all(one.whole and len(one.heard_s) >= LENGTH // 2 for one in seen):
        raise RuntimeError("a stream was not whole")
    hit = [one.silence_s for one in seen if one.replica == NAMES[1]]
    others = [one.silence_s for one in seen if one.replica != NAMES[1]]
    return {"hit_median_s": median(hit), "hit_longest_s": max(hit), "others_median_s": median(others)}


async def until(true: Callable[[], bool]) -> None:
    """Wait for something to become true, at most a minute."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


def main() -> int:
    """Print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.streams < len(NAMES):
        parser.error(f"--streams: give at least {len(NAMES)}, one for each engine")
    rounds = [asyncio.run(round_of(options.streams)) for _ in range(options.rounds)]
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average": os.getloadavg(),
        "streams": options.streams,
        "rounds": [{name: round(value, 3) for name, value in one.items()} for one in rounds],
    }
    print(text := json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
