"""`millrace serve`: the gateway in front of engines that run already, or of a small fleet of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from millrace.cli.output import say
from millrace.cli.serving import aliases_of, fallbacks_of
from millrace.control import Controller, ControlSettings, RetryBudget
from millrace.core.replica import ReplicaSpec
from millrace.gateway import GatewaySettings
from millrace.gateway import run as run_gateway
from millrace.launch import Fleet, Front, engine_command, gateway_command
from millrace.policies import load

DEMO_RUN = Path("millrace-demo")
BUDGET = RetryBudget()


def run(
    *,
    backend: Annotated[
        list[str] | None, typer.Option(help="An engine, [NAME=]http://HOST:PORT (repeatable).")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Start engines with the demo model and serve those.")
    ] = False,
    engines: Annotated[int, typer.Option(min=1, help="How many engines --demo starts.")] = 3,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = 8080,
    routing: Annotated[str, typer.Option(help="Routing policy; see `millrace policies`.")] = "least_work",
    queueing: Annotated[str, typer.Option(help="Queueing policy.")] = "fcfs",
    max_attempts: Annotated[int, typer.Option(help="Replicas a request is tried on.")] = 3,
    retry_ratio: Annotated[
        float, typer.Option(help="Share of all requests that may be tried again.")
    ] = BUDGET.ratio,
    retry_reserve: Annotated[
        int, typer.Option(help="Retries kept for an engine's sudden death.")
    ] = BUDGET.reserve,
    retry_floor: Annotated[
        float, typer.Option(help="Retries allowed each second, however little arrives.")
    ] = BUDGET.floor_per_s,
    max_held: Annotated[
        int, typer.Option(help="Requests held per model while no replica can take them.")
    ] = 1024,
    max_hold: Annotated[float, typer.Option(help="Seconds a request is held at most.")] = 30.0,
    specs: Annotated[
        Path | None, typer.Option(help="JSON file: for a backend, what was bought (see docs/wire.md).")
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name of a model, NAME=MODEL, or of several by weight, NAME=MODEL:90,OTHER:10; "
            "the name * stands for any that is not served (repeatable)."
        ),
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="Models to turn to when one cannot answer, MODEL=OTHER,OTHER (repeatable)."),
    ] = None,
    answer_as_asked: Annotated[
        bool,
        typer.Option(
            "--answer-as-asked/--answer-as-served",
            help="What an answer calls its model: the name asked for, or the engine's own.",
        ),
    ] = True,
    admin_host: Annotated[str, typer.Option(help="Address of the admin port.")] = "127.0.0.1",
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve metrics and health on this port too; 0 takes any free one."
        ),
    ] = None,
    event_log: Annotated[
        Path | None, typer.Option(help="Write every event and decision to this file.")
    ] = None,
    scrape: Annotated[float, typer.Option(help="Seconds between two looks at each engine.")] = 1.0,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that running answers get on SIGTERM.")] = 30.0,
    max_body: Annotated[int, typer.Option(help="Bytes a request body may have.")] = 32 << 20,
) -> None:
    """Serve OpenAI's API in front of a fleet; every decision is the policy's you chose."""
    budget = RetryBudget(ratio=retry_ratio, reserve=retry_reserve, floor_per_s=retry_floor)
    controller = Controller(
        load("routing", routing),
        load("queueing", queueing),
        ControlSettings(
            max_attempts=max_attempts, max_held=max_held, max_hold_s=max_hold, retry_budget=budget
        ),
    )
    if demo == bool(backend):
        raise ValueError("say which engines to serve: --backend http://HOST:PORT (repeatable), or --demo")
    if demo:
        patience = _words(max_attempts=max_attempts, max_held=max_held, max_hold=max_hold, drain=drain)
        retries = _words(retry_ratio=retry_ratio, retry_reserve=retry_reserve, retry_floor=retry_floor)
        front = _words(host=host, queueing=queueing, specs=specs, scrape=scrape, max_body=max_body)
        admin = _words(admin_host=admin_host, admin_port=admin_port)
        named = [word for name in alias or () for word in ("--alias", name)]
        named += [word for chain in fallback or () for word in ("--fallback", chain)]
        named += [] if answer_as_asked else ["--answer-as-served"]
        options = (*patience, *retries, *front, *admin, *named)
        gateway = gateway_command(routing=routing, event_log=event_log, port=port, options=options)
        raise typer.Exit(_until_interrupted(_serve_demo(engines, gateway, drain)))
    settings = GatewaySettings(
        backends=tuple(backend or ()),
        host=host,
        port=port,
        specs=_specs(specs),
        aliases=aliases_of(alias or []),
        fallbacks=fallbacks_of(fallback or []),
        answer_as_asked=answer_as_asked,
        admin_host=admin_host,
        admin_port=admin_port,
        event_log=event_log,
        scrape_s=scrape,
        drain_s=drain,
        max_body_bytes=max_body,
    )
    raise typer.Exit(run_gateway(settings, controller))


def _words(**options: object) -> list[str]:
    """Return the command line that says this."""
    said = [
        (f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None
    ]
    return [word for pair in said for word in pair]


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
