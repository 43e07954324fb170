"""What the gateway costs: CPU per request and per streamed chunk, next to going straight to the engine.

Three kinds of process: a trivial asyncio engine, gateways, and this load generator. Every round runs the
direct path and the gateways one after the other, so that all see the same machine. CPU is what the kernel
charged to a gateway's process: other work (`load_average`) moves it less than it moves latency, but makes
every item dearer, so the least of all rounds is given too. The direct path is the bound.

    python benchmarks/gateway_overhead.py [--seconds 3] [--rounds 3] [--json benchmarks/results/x.json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import monotonic
from typing import Any, cast

import uvloop

TOKEN = b'{"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"token"}}]}'
CHUNK = b"data: " + TOKEN.ljust(232) + b"\n\n"
TOLD = CHUNK.replace(b"}}]", b'},"token_ids":[12345]}]')
FIRST_TOLD = TOLD.replace(b"]}]", b']}],"prompt_token_ids":[%b]' % b",".join([b"12345"] * 250))
CHUNKS = 64
USAGE = b'{"prompt_tokens":250,"completion_tokens":64,"total_tokens":314}'
LAST = b'data: {"choices":[],"usage":' + USAGE + b"}\n\n"
ANSWER = b'{"id":"c","choices":[{"message":{"content":"' + b"x" * 430 + b'"}}],"usage":' + USAGE + b"}"
MODELS = b'{"object":"list","data":[{"id":"m","object":"model","resume":true}]}'
WARM_S = 0.5
REQUESTS, STREAMS = "1 KB requests, 64 at a time", "400 paced streams"


def framed(payload: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class MockEngine(asyncio.Protocol):
    """Answers at once, or streams at a fixed pace."""

    pace_s = 0.025

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        at = self.buffer.find(b"content-length: ", 0, end)
        size = end + (int(self.buffer[at + 16 : self.buffer.find(b"\r\n", at)]) if at >= 0 else 0)
        if len(self.buffer) >= size:
            request, self.buffer = self.buffer[:size], self.buffer[size:]
            self.answer(request)

    def answer(self, request: bytes) -> None:
        """Write the answer, or its beginning."""
        if request.startswith(b"GET"):
            body = MODELS if b" /v1/models" in request else b""
        elif b'"stream":true' in request:
            self.write_head()
            self.told = b'"return_token_ids":true' in request
            self.left, self.due_s = CHUNKS, monotonic()
            self.step()
            return
        else:
            body = ANSWER
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)

    def write_head(self) -> None:
        """Begin a stream."""
        fields = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")

    def step(self) -> None:
        """Write the next token of a stream, on an absolute schedule."""
        if self.transport.is_closing():
            return
        if self.left:
            plain = FIRST_TOLD if self.left == CHUNKS else TOLD
            self.left -= 1
            self.transport.write(framed(plain if self.told else CHUNK))
            self.due_s += self.pace_s
            asyncio.get_running_loop().call_later(max(0.0, self.due_s - monotonic()), self.step)
        else:
            self.transport.write(framed(LAST) + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")


class Load(asyncio.Protocol):
    """One client in a closed loop; counts answers, or chunks of streams."""

    def __init__(self, tally: Tally, request: bytes, *, stream: bool) -> None:
        self.tally, self.request, self.stream = tally, request, stream
        self.tail = b""
        self.got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        """Send a request."""
        self.sent_s, self.got, self.tail = monotonic(), 0, b""
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count; send again when the answer is complete."""
        if not self.stream:
            done = data.endswith(b"}") and not data.endswith(b"{")
            self.tally.items += done
        else:
            chunks = data.count(b"data: {")
            if chunks and not self.got:
                self.tally.latencies.append(monotonic() - self.sent_s)
            self.got += chunks
            self.tally.items += chunks
            self.tail = (self.tail + data)[-5:]
            done = self.tail == b"0\r\n\r\n"
        if done:
            if not self.stream:
                self.tally.latencies.append(monotonic() - self.sent_s)
            self.send()


class Tally:
    """What all clients of a case saw."""

    def __init__(self) -> None:
        self.items = 0
        self.latencies: list[float] = []


def request(*, stream: bool) -> bytes:
    """A chat request of about 1 KB."""
    message = json.dumps([{"role": "user", "content": "a prompt " * 100}], separators=(",", ":"))
    body = f'{{"model":"m","messages":{message},"max_tokens":64,"stream":{str(stream).lower()}}}'
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-x\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


async def measure(port: int, pid: int, *, stream: bool, seconds: float) -> dict[str, float]:
    """Load a port for a while; return the rate, the latency (first byte of streams) and the CPU per item."""
    loop, tally = asyncio.get_running_loop(), Tally()
    transports = []
    for _ in range(400 if stream else 64):
        transport, _ = await loop.create_connection(
            lambda: Load(tally, request(stream=stream), stream=stream), "127.0.0.1", port
        )
        transports.append(transport)
        await asyncio.sleep(MockEngine.pace_s * CHUNKS / 400 if stream else 0)
    await asyncio.sleep(WARM_S)
    tally.items, begun_s, cpu_begun_s = 0, monotonic(), cpu_of(pid)
    kernel_begun_s = kernel_s(pid)
    tally.latencies.clear()
    await asyncio.sleep(seconds)
    items, took_s, cpu_took_s = tally.items, monotonic() - begun_s, cpu_of(pid) - cpu_begun_s
    in_kernel = (kernel_s(pid) - kernel_begun_s) / cpu_took_s
    cuts = quantiles(tally.latencies, n=100)
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0.2)
    return {
        "items_per_s": round(items / took_s),
        "latency_p50_ms": round(cuts[49] * 1000, 2),
        "latency_p99_ms": round(cuts[98] * 1000, 2),
        "cpu_us_per_item": round(cpu_took_s / items * 1e6, 1),
        "cpu_share_in_kernel": round(in_kernel, 2),
    }


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, all threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def kernel_s(pid: int) -> float:
    """CPU seconds of a process spent in the kernel so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[12]) / os.sysconf("SC_CLK_TCK")


@contextmanager
def child(*arguments: str, core: int) -> Iterator[tuple[int, int]]:
    """Run this file in a role on one core; yield its pid and port."""
    command = ["taskset", "-c", str(core), sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        if not line.startswith("ready"):
            raise RuntimeError(line + process.stderr.read())
        yield process.pid, int(line.rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait()


async def serve_engine() -> None:
    """The engine's role."""
    server = await asyncio.get_running_loop().create_server(MockEngine, "127.0.0.1", 0, backlog=1024)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
    await server.serve_forever()


def serve_gateway(backend: str, routing: str, log: str, failover: str) -> int:
    """The gateway's role."""
    from importlib import import_module

    from millrace.control import Controller
    from millrace.gateway import GatewaySettings, run
    from millrace.policies.queueing.fcfs import Policy

    policy = import_module(f"millrace.policies.routing.{routing}").Policy()
    event_log = Path(log) if log else None
    settings = GatewaySettings(backends=(backend,), port=0, event_log=event_log, failover=bool(failover))
    return run(settings, Controller(policy, Policy()))


def compare(seconds: float, rounds: int) -> dict[str, Any]:
    """Alternate between all paths; return every round's figures by case and path."""
    cases: dict[str, Any] = {REQUESTS: {}, STREAMS: {}}
    with tempfile.TemporaryDirectory() as folder, child("engine", core=1) as (_, engine):
        backend = f"http://127.0.0.1:{engine}"
        with (
            child("gateway", backend, "round_robin", "", "", core=0) as plain,
            child("gateway", backend, "round_robin", "", "failover", core=0) as failover,
            child("gateway", backend, "least_work", f"{folder}/events.jsonl", "", core=0) as logging,
        ):
            paths = {
                "direct": (os.getpid(), engine),
                "gateway, round_robin": plain,
                "gateway, round_robin, failover": failover,
                "gateway, least_work, event log": logging,
            }
            for _ in range(rounds):
                for case, stream in ((REQUESTS, False), (STREAMS, True)):
                    for path, (pid, port) in paths.items():
                        figures = uvloop.run(measure(port, pid, stream=stream, seconds=seconds))
                        cases[case].setdefault(path, []).append(figures)
                        print(f"{case:30} {path:32} {figures}", file=sys.stderr, flush=True)
    return cases


def summary(rounds: list[dict[str, float]], path: str) -> dict[str, float]:
    """The median of each figure; a direct path has no gateway whose CPU could be counted."""
    figures = {name: median(one[name] for one in rounds) for name in rounds[0]}
    if path == "direct":
        return {name: value for name, value in figures.items() if not name.startswith("cpu")}
    return figures | {"cpu_us_per_item_least": min(one["cpu_us_per_item"] for one in rounds)}


def main() -> int:
    """Run a role, or the comparison."""
    if sys.argv[1:2] == ["engine"]:
        uvloop.run(serve_engine())
        return 0
    if sys.argv[1:2] == ["gateway"]:
        return serve_gateway(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    cases = compare(options.seconds, options.rounds)
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average": os.getloadavg(),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "median": {
            case: {path: summary(rounds, path) for path, rounds in paths.items()}
            for case, paths in cases.items()
        },
    }
    print(text := json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
