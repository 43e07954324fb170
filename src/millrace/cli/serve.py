"""`millrace serve`: the gateway in front of engines that run already, or of a small fleet of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import msgspec
import typer

from millrace.cli import serving_options as options
from millrace.cli.output import say
from millrace.cli.serving import aliases_of, fallbacks_of, words_of
from millrace.control import Controller, ControlSettings, RetryBudget
from millrace.core.replica import ReplicaSpec
from millrace.gateway import GatewaySettings
from millrace.gateway import run as run_gateway
from millrace.launch import Fleet, Front, engine_command, gateway_command
from millrace.policies import load

DEMO_RUN = Path("millrace-demo")
BUDGET = RetryBudget()
UNKNOWN_YET = (
    "http://127.0.0.1:1"  # where an engine of the demo will be: only so that all else is checked now
)


def run(
    context: typer.Context,
    *,
    backend: options.Backends = None,
    demo: options.Demo = False,
    engines: options.Engines = 3,
    specs: options.Specs = None,
    scrape: options.Scrape = 1.0,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8080,
    admin_host: options.AdminHost = "127.0.0.1",
    admin_port: options.AdminPort = None,
    drain: options.Drain = 30.0,
    max_body: options.MaxBody = 32 << 20,
    routing: options.Routing = "least_work",
    queueing: options.Queueing = "fcfs",
    event_log: options.EventLog = None,
    alias: options.Alias = None,
    fallback: options.Fallback = None,
    answer_as_asked: options.AnswerAsAsked = True,
    max_attempts: options.MaxAttempts = 3,
    retry_ratio: options.RetryRatio = BUDGET.ratio,
    retry_reserve: options.RetryReserve = BUDGET.reserve,
    retry_floor: options.RetryFloor = BUDGET.floor_per_s,
    max_held: options.MaxHeld = 1024,
    max_hold: options.MaxHold = 30.0,
) -> None:
    """Serve OpenAI's API in front of a fleet; every decision is the policy's you chose."""
    budget = RetryBudget(ratio=retry_ratio, reserve=retry_reserve, floor_per_s=retry_floor)
    patience = ControlSettings(
        max_attempts=max_attempts, max_held=max_held, max_hold_s=max_hold, retry_budget=budget
    )
    controller = Controller(load("routing", routing), load("queueing", queueing), patience)
    if demo == bool(backend):
        raise ValueError("say which engines to serve: --backend http://HOST:PORT (repeatable), or --demo")
    settings = GatewaySettings(
        backends=tuple(backend or [UNKNOWN_YET]),
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        specs=_specs(specs),
        aliases=aliases_of(alias or []),
        fallbacks=fallbacks_of(fallback or []),
        answer_as_asked=answer_as_asked,
        event_log=event_log,
        scrape_s=scrape,
        drain_s=drain,
        max_body_bytes=max_body,
    )
    if demo:
        again = words_of(
            context.params, leave_out=("backend", "demo", "engines", "routing", "port", "event_log")
        )
        gateway = gateway_command(routing=routing, event_log=event_log, port=port, options=again)
        raise typer.Exit(_until_interrupted(_serve_demo(engines, gateway, drain)))
    raise typer.Exit(run_gateway(settings, controller))


def _specs(path: Path | None) -> dict[str, ReplicaSpec]:
    if path is None:
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, ReplicaSpec])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from None


def _until_interrupted(serving: Coroutine[None, None, int]) -> int:
    """Run to the end; Ctrl-C is how a person ends it, and no failure."""
    try:
        return asyncio.run(serving)
    except KeyboardInterrupt:
        say("stopped")
        return 0


async def _serve_demo(engines: int, gateway: Front, drain_s: float) -> int:
    """Run a small fleet until Ctrl-C, which leaves running answers the time they are granted."""
    say(f"starting {engines} engines with the demo model …")
    commands = [engine_command("demo") for _ in range(engines)]
    async with Fleet(engines=commands, gateway=gateway, run_dir=DEMO_RUN, grace_s=drain_s + 5) as fleet:
        say(f"ready {fleet.gateway.url}; logs are in {DEMO_RUN}/. Try:\n")
        say(_CURL.format(url=fleet.gateway.url))
        say("\nCtrl-C stops it.")
        code = await fleet.gateway.ended()
    say(f"the gateway ended by itself; its last words are in {fleet.gateway.log}")
    return code


_CURL = """  curl {url}/v1/completions -H 'content-type: application/json' \\
    -d '{{"model": "demo", "prompt": "def read_lines(path):\\n", "max_tokens": 64, "temperature": 0}}'"""
