"""The live half of the demo: engines and a gateway as processes, and a client that keeps to the schedule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from millrace.bench.demo.calibrate import Logged, read_steps
from millrace.bench.demo.settings import MODEL, DemoSettings
from millrace.bench.load import Load, Sent
from millrace.bench.prompts import Planned
from millrace.bench.report import Run
from millrace.core.outcome import Outcome, measure
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.launch import Command, Fleet, engine_command, gateway_command
from millrace.launch.commands import Front


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


def fleet(settings: DemoSettings, repeat: int) -> Fleet:
    """Engines with empty caches that log their steps, behind a gateway that rehearses the first policy."""
    folder = _logs(settings.out, repeat)
    folder.mkdir(parents=True, exist_ok=True)
    steps = [step_log(settings.out, repeat, n) for n in range(settings.engines)]
    for log in steps:
        log.unlink(missing_ok=True)
    return Fleet(
        engines=[engine(settings.limits, "--step-log", str(log)) for log in steps],
        gateway=rehearsing(settings, settings.routing[0]),
        run_dir=folder,
    )


def rehearsing(settings: DemoSettings, routing: str) -> Front:
    """A gateway under one routing policy, for rehearsals."""
    return gateway_command(routing=routing, names=[replica_id(n) for n in range(settings.engines)])


def gateway(settings: DemoSettings, routing: str, repeat: int, spec: ReplicaSpec) -> Front:
    """A gateway under one routing policy, with an event log of its own."""
    names = [replica_id(n) for n in range(settings.engines)]
    specs = _logs(settings.out, repeat) / "specs.json"
    specs.write_bytes(msgspec.json.encode(dict.fromkeys(names, spec)))
    log = event_log(settings.out, routing, "live", repeat)
    log.unlink(missing_ok=True)
    return gateway_command(routing=routing, event_log=log, names=names, options=("--specs", str(specs)))


def steps_so_far(settings: DemoSettings, repeat: int) -> list[list[Logged]]:
    """Return what each engine of a repeat has logged."""
    return [read_steps(step_log(settings.out, repeat, n)) for n in range(settings.engines)]


def step_log(out: Path, repeat: int, index: int) -> Path:
    """Where an engine logs its steps."""
    return _logs(out, repeat) / f"steps-{index}.jsonl"


def replica_id(index: int) -> str:
    """The name of a replica, the same in both worlds so that a hash of it is too."""
    return f"engine-{index}"


def event_log(out: Path, routing: str, world: str, repeat: int) -> Path:
    """Where the event log of a policy in a world goes."""
    return out / f"events-{routing}-{world}-{repeat}.jsonl"


def _logs(out: Path, repeat: int) -> Path:
    return out / "logs" / f"repeat-{repeat}"


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
