"""The live half of the demo: engines and a gateway as processes, and a client that keeps to the schedule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from millrace.bench.demo.settings import MODEL, DemoSettings
from millrace.bench.load import Load, Sent
from millrace.bench.prompts import Planned
from millrace.bench.report import Run
from millrace.core.outcome import Outcome, measure
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.launch import Command, Fleet, engine_command, gateway_command


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


def calibration_fleet(settings: DemoSettings) -> Fleet:
    """A fleet whose engines log their steps."""
    folder = settings.out / "logs" / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    logs = [step_log(settings.out, n) for n in range(settings.engines)]
    for log in logs:
        log.unlink(missing_ok=True)
    return Fleet(
        engines=[engine(settings.limits, "--step-log", str(log)) for log in logs],
        gateway=gateway_command(routing="round_robin"),
        run_dir=folder,
    )


def fleet(settings: DemoSettings, routing: str, spec: ReplicaSpec) -> Fleet:
    """A fleet under one routing policy, with empty caches and an event log of its own."""
    folder = settings.out / "logs" / routing
    folder.mkdir(parents=True, exist_ok=True)
    names = [replica_id(n) for n in range(settings.engines)]
    specs = folder / "specs.json"
    specs.write_bytes(msgspec.json.encode(dict.fromkeys(names, spec)))
    log = event_log(settings.out, routing, "live")
    log.unlink(missing_ok=True)
    options = ("--specs", str(specs))
    return Fleet(
        engines=[engine(settings.limits) for _ in names],
        gateway=gateway_command(routing=routing, event_log=log, names=names, options=options),
        run_dir=folder,
    )


def step_log(out: Path, index: int) -> Path:
    """Where an engine logs its steps during calibration."""
    return out / "logs" / "calibration" / f"steps-{index}.jsonl"


def replica_id(index: int) -> str:
    """The name of a replica, the same in both worlds so that a hash of it is too."""
    return f"engine-{index}"


def event_log(out: Path, routing: str, world: str) -> Path:
    """Where the event log of a policy in a world goes."""
    return out / f"events-{routing}-{world}.jsonl"


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
