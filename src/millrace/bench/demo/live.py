"""The live half of the demo: engines and a gateway as processes, and a client that keeps to the schedule."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from millrace.bench.demo.settings import MODEL, DemoSettings
from millrace.bench.load import Load, Sent
from millrace.bench.prompts import Planned
from millrace.bench.report import Run
from millrace.core.outcome import Outcome, measure
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.launch import Command, Fleet, Process, engine_command, gateway_command

READY_WITHIN_S = 120.0


def engine(limits: Limits, *options: str) -> Command:
    """The command of one demo engine on one core."""
    knobs = {
        "--max-num-seqs": limits.sequences,
        "--max-num-batched-tokens": limits.step_tokens,
        "--kv-blocks": limits.kv_blocks,
        "--block-size": limits.block_tokens,
        "--max-model-len": limits.context_tokens,
    }
    words = [str(word) for knob in knobs.items() for word in knob]
    return engine_command(MODEL, threads=1, options=(*words, *options))


def fleet(settings: DemoSettings, routing: str, spec: ReplicaSpec) -> Fleet:
    """A fleet under one routing policy, with empty caches and an event log of its own."""
    folder = settings.out / "logs" / routing
    folder.mkdir(parents=True, exist_ok=True)
    specs = folder / "specs.json"
    specs.write_bytes(msgspec.json.encode({replica_id(n): spec for n in range(settings.engines)}))
    log = event_log(settings.out, routing, "live")
    log.unlink(missing_ok=True)
    return Fleet(
        engines=[engine(settings.limits) for _ in range(settings.engines)],
        gateway=gateway_command(
            routing=routing,
            event_log=log,
            names=[replica_id(n) for n in range(settings.engines)],
            options=("--specs", str(specs)),
        ),
        run_dir=folder,
    )


def replica_id(index: int) -> str:
    """The name of a replica, the same in both worlds so that a hash of it is too."""
    return f"engine-{index}"


def event_log(out: Path, routing: str, world: str) -> Path:
    """Where the event log of a policy in a world goes."""
    return out / f"events-{routing}-{world}.jsonl"


@asynccontextmanager
async def lone_engine(settings: DemoSettings, folder: Path, *, step_log: Path) -> AsyncIterator[str]:
    """One engine without a gateway, that logs its steps; yields its URL."""
    process = Process("engine", engine(settings.limits, "--step-log", str(step_log)), folder / "engine.log")
    try:
        await process.start(within_s=READY_WITHIN_S)
        yield process.url
    finally:
        await process.stop()


async def send(url: str, planned: list[Planned]) -> Sent:
    """Send a plan and wait for the last answer."""
    return await Load(url, planned).run()


async def play(url: str, planned: list[Planned], slo: Slo, progress: Callable[[Outcome], None]) -> Run:
    """Send the plan to a gateway and measure what came of it."""
    sent = await Load(url, planned, on_outcome=progress).run()
    return Run(
        measured=measure(sent.outcomes, slo),
        outcomes=sent.outcomes,
        client_lag_s=sent.client_lag_s,
        token_gap_s=sent.token_gap_s,
    )
