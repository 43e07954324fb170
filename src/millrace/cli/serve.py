"""`millrace serve`: the gateway in front of engines that run already, or of a small fleet of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import typer
from msgspec import UNSET

from millrace.cli import guarding, knowing, patience, predicting, waiting
from millrace.cli import serving_options as options
from millrace.cli.output import EXIT_USAGE, CommandError
from millrace.cli.patience import BUDGET, PATIENCE
from millrace.cli.route import shadows
from millrace.cli.serving import aliases_of, fallbacks_of, in_options, words_of
from millrace.cli.serving_demo import serve_demo
from millrace.cli.waiting import rules_of
from millrace.control import Controller, ControlSettings, RetryBudget
from millrace.core.replica import ReplicaSpec
from millrace.core.ways import Assumed
from millrace.gateway import AddressError, GatewaySettings, Shadows, require_free
from millrace.gateway import run as run_gateway
from millrace.gateway.handing import Bootstrap
from millrace.launch import gateway_command
from millrace.policies import load

T = TypeVar("T")
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
    bootstrap: options.Bootstrap = None,
    scrape: options.Scrape = 1.0,
    failover: options.Failover = "on",
    stall_timeout: options.StallTimeout = 300.0,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8080,
    admin_host: options.AdminHost = "127.0.0.1",
    admin_port: options.AdminPort = None,
    drain: options.Drain = 30.0,
    max_body: options.MaxBody = 32 << 20,
    routing: options.Routing = "millrace",
    queueing: options.Queueing = "fcfs",
    migration: options.Migration = None,
    event_log: options.EventLog = None,
    log_scores: options.LogScores = False,
    shadow: options.Shadow = None,
    alias: options.Alias = None,
    fallback: options.Fallback = None,
    answer_as_asked: options.AnswerAsAsked = True,
    max_attempts: patience.MaxAttempts = PATIENCE.max_attempts,
    retry_ratio: patience.RetryRatio = BUDGET.ratio,
    retry_reserve: patience.RetryReserve = BUDGET.reserve,
    retry_floor: patience.RetryFloor = BUDGET.floor_per_s,
    max_held: patience.MaxHeld = PATIENCE.max_held,
    max_hold: patience.MaxHold = PATIENCE.max_hold_s,
    max_waiting: patience.MaxWaiting = None,
    queue_rule: waiting.Rules = None,
    prefix_knowledge: knowing.Knowledge = "answers",
    prefix_ttl: knowing.Ttl = None,
    prefix_index_bytes: knowing.IndexBytes = PATIENCE.prefix_index_bytes,
    kv_events: knowing.KvEvents = None,
    block_tokens: knowing.BlockTokens = None,
    tokenizer: knowing.Tokenizers = None,
    tokenize_within: knowing.Within = 0.1,
    predictor: predicting.PredictorFile = None,
    log_features: predicting.LogFeatures = False,
    serial: predicting.Serial = False,
    overflow_guard: guarding.Guard = "off",
    overflow_reminder: guarding.Reminder = None,
) -> None:
    """Serve OpenAI's API in front of a fleet; every decision is the policy's you chose."""
    _require_one(demo, backend)
    _serve(predicting.with_serial(context))


def _serve(said: Mapping[str, Any]) -> None:
    """Serve as the options, by their parameters' names, say."""
    with in_options():
        patient, settings = _control(said), _gateway(said)
        knowing.require_speakers(settings, patient)
    watching = None if said["shadow"] is None else Shadows(shadows(said["shadow"]))
    controller = _controller(said, patient, watching)
    wording, guard = predicting.wording_of(said), guarding.guarding_of(said)
    if not said["demo"]:
        serve = partial(run_gateway, settings, controller, watching, wording, guarding=guard)
        raise typer.Exit(_served(partial(serve, tokenizers=knowing.tokenizers_of(said["tokenizer"]))))
    _served(lambda: require_free(settings))
    again = words_of(said, leave_out=("backend", "demo", "engines", "routing", "port", "event_log"))
    named = {name: said[name] for name in ("routing", "event_log", "port")}
    gateway = gateway_command(**named, options=again)
    raise typer.Exit(serve_demo(said["engines"], gateway, drain_s=said["drain"]))


def _controller(said: Mapping[str, Any], patient: ControlSettings, watching: Shadows | None) -> Controller:
    routing, queueing = load("routing", said["routing"]), load("queueing", said["queueing"])
    migration = None if said["migration"] is None else load("migration", said["migration"])
    return Controller(routing, queueing, patient, migration=migration, witness=watching)


def _served(serve: Callable[[], T]) -> T:
    """Do it, and let an address that cannot be listened on be an error in an option."""
    try:
        return serve()
    except AddressError as error:
        raise CommandError(f"{error}; choose another --{error.setting}", EXIT_USAGE) from None


def _control(said: Mapping[str, Any]) -> ControlSettings:
    """Return what the options, by their parameters' names, say of the controller."""
    budget = RetryBudget(
        ratio=said["retry_ratio"], reserve=said["retry_reserve"], floor_per_s=said["retry_floor"]
    )
    return ControlSettings(
        max_attempts=said["max_attempts"],
        max_held=said["max_held"],
        max_hold_s=said["max_hold"],
        max_waiting=UNSET if said["max_waiting"] is None else said["max_waiting"],
        retry_budget=budget,
        log_scores=said["log_scores"] or UNSET,
        max_in_flight=1 if said["serial"] else UNSET,
        leaving=Assumed() if said["failover"] == "on" else UNSET,
        queue=rules_of(said["queue_rule"]),
        **knowing.control_fields_of(said),
    )


def _gateway(said: Mapping[str, Any]) -> GatewaySettings:
    """Return what the options say of the gateway."""
    return GatewaySettings(
        backends=tuple(said["backend"] or [UNKNOWN_YET]),
        host=said["host"],
        port=said["port"],
        admin_host=said["admin_host"],
        admin_port=said["admin_port"],
        specs=_specs(said["specs"]),
        bootstraps=dict(map(Bootstrap.parse, said["bootstrap"] or [])),
        aliases=aliases_of(said["alias"] or []),
        fallbacks=fallbacks_of(said["fallback"] or []),
        answer_as_asked=said["answer_as_asked"],
        event_log=_log(said["event_log"]),
        scrape_s=said["scrape"],
        failover=said["failover"] == "on",
        stall_timeout_s=said["stall_timeout"],
        drain_s=said["drain"],
        max_body_bytes=said["max_body"],
        **knowing.fields_of(said),
    )


def _log(path: Path | None) -> Path | None:
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--event-log: there is no folder {path.parent}; make it, or name another")
    return path


def _require_one(demo: bool, backend: list[str] | None) -> None:
    """Raise ValueError unless it is clear which engines are served."""
    if demo and backend:
        raise ValueError(
            "--demo starts engines, --backend names some that run: give one of the two, not both"
        )
    if not demo and not backend:
        raise ValueError("say which engines to serve: --backend http://HOST:PORT (repeatable), or --demo")


def _specs(path: Path | None) -> dict[str, ReplicaSpec]:
    if path is None:
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, ReplicaSpec])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from None
