"""The options of `millrace simulate`, with the words that `--help` shows for them, in panels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from millrace.cli.options import factor

WORKLOAD = "What comes in"
FLEET = "What serves it, and what its steps cost"
POLICIES = "Who decides"
MEANWHILE = "What happens meanwhile"
STUDY = "How much, and how sure"
OUTPUT = "What is written"

TraceName = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="A shipped trace (azure_conv_2023, mooncake_conversation) or a file.",
        rich_help_panel=WORKLOAD,
    ),
]
Requests = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Only the first so many requests.", rich_help_panel=WORKLOAD),
]
Rate = Annotated[
    float,
    typer.Option(
        parser=factor,
        metavar="xN",
        help="Let requests come so many times as fast, like x2.",
        rich_help_panel=WORKLOAD,
    ),
]
Lengths = Annotated[
    float,
    typer.Option(
        parser=factor,
        metavar="xN",
        help="Multiply lengths of prompts and answers, like x0.5.",
        rich_help_panel=WORKLOAD,
    ),
]
InputScale = Annotated[
    float,
    typer.Option(
        parser=factor, metavar="xN", help="Multiply lengths of prompts only.", rich_help_panel=WORKLOAD
    ),
]
OutputScale = Annotated[
    float,
    typer.Option(
        parser=factor, metavar="xN", help="Multiply lengths of answers only.", rich_help_panel=WORKLOAD
    ),
]
Models = Annotated[
    str | None,
    typer.Option(
        metavar="MODELS",
        help="Models for the trace's names, like GPT-4=llama-3-70b, or shares of all requests, like "
        "llama-3-8b:70,qwen3-8b:30.",
        rich_help_panel=WORKLOAD,
    ),
]
Adapters = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Spread requests over so many low-rank adapters, the k-th 1/k as often as the first.",
        rich_help_panel=WORKLOAD,
    ),
]
ClosedLoop = Annotated[
    bool,
    typer.Option(
        "--closed-loop",
        help="A turn of a conversation comes when the one before it was answered and thought over.",
        rich_help_panel=WORKLOAD,
    ),
]
Think = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="With --closed-loop: how long an answer is thought over, like 5s; else as the trace tells.",
        rich_help_panel=WORKLOAD,
    ),
]
Objectives = Annotated[
    str,
    typer.Option(metavar="LIMITS", help="What counts as in time.", rich_help_panel=WORKLOAD),
]

Fleet = Annotated[
    str,
    typer.Option(
        metavar="WORDS",
        help='Like "8x a100-80g llama-3-8b tp=1", groups separated by commas.',
        rich_help_panel=FLEET,
    ),
]
Profile = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[MODEL=]PATH",
        help="Price steps by this folder of measured operators, fitted profile or calibration file "
        "(repeatable; MODEL@DEVICE=PATH for some replicas only).",
        rich_help_panel=FLEET,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Price all steps by this calibration, shipped or your own.",
        rich_help_panel=FLEET,
    ),
]
ColdStart = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long a replica that starts takes to be ready, like 45s, where --fleet does not say.",
        rich_help_panel=FLEET,
    ),
]
LoadBandwidth = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES/s",
        help="Or the bandwidth at which it reads its weights, like 5GB/s.",
        rich_help_panel=FLEET,
    ),
]

Routing = Annotated[
    str,
    typer.Option(
        metavar="NAMES", help="Routing policies to compare, with commas between.", rich_help_panel=POLICIES
    ),
]
Queueing = Annotated[str, typer.Option(metavar="NAME", help="Queueing policy.", rich_help_panel=POLICIES)]
Batching = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Batching policies of the replicas to compare, with commas between.",
        rich_help_panel=POLICIES,
    ),
]

Migration = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Policy that moves requests between replicas, like dualmap; else nobody moves.",
        rich_help_panel=POLICIES,
    ),
]

LinkSpeed = Annotated[
    str | None,
    typer.Option(
        "--link",
        metavar="BYTES/s[,TIME]",
        help="What carries KV caches from replica to replica, per replica, like 50GB/s,10us.",
        rich_help_panel=FLEET,
    ),
]
Faults = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|SCRIPT",
        help="What happens to replicas (r0, r1, ...), like 'kill r0 at 60s; start r0 at 90s; "
        "drain r1 at 2m'.",
        rich_help_panel=MEANWHILE,
    ),
]
Failover = Annotated[
    Literal["on", "off"],
    typer.Option(
        help="Whether answers of replicas that are killed, or drain, go on at others.",
        rich_help_panel=MEANWHILE,
    ),
]
Scrape = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="What replicas say of their load, and that they came or went, is heard only so often, like 5s.",
        rich_help_panel=MEANWHILE,
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        metavar="TIME[,TIME]",
        help="What the way to an engine takes, and the way back, like 1ms.",
        rich_help_panel=MEANWHILE,
    ),
]
Slowdowns = Annotated[
    str | None,
    typer.Option(
        metavar="xN,xN,...",
        help="Engines share a machine: how much longer a step takes while 1, 2, ... of them are busy, "
        "like x1,x1.6,x2.3.",
        rich_help_panel=MEANWHILE,
    ),
]

Energy = Annotated[
    bool,
    typer.Option(
        "--energy",
        help="Add up the joules of all steps and of waiting, which takes up to twice as long.",
        rich_help_panel=STUDY,
    ),
]
Itl = Annotated[
    bool,
    typer.Option(
        "--itl",
        help="Count the gaps between any two tokens of an answer, beside TPOT; reports always do.",
        rich_help_panel=STUDY,
    ),
]
Find = Annotated[
    Literal["capacity"] | None,
    typer.Option(help="Search the highest rate at which enough requests meet --slo.", rich_help_panel=STUDY),
]
Attain = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="With --find: the share of requests that must meet --slo.",
        rich_help_panel=STUDY,
    ),
]
Repeat = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Runs per policy, each with arrivals drawn anew.", rich_help_panel=STUDY
    ),
]
Sensitivity = Annotated[
    bool,
    typer.Option(
        "--sensitivity",
        help="Run again with all steps 10 % shorter, and 10 % longer.",
        rich_help_panel=STUDY,
    ),
]
Processes = Annotated[
    int, typer.Option("--jobs", min=1, metavar="N", help="Processes to run at a time.", rich_help_panel=STUDY)
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]
RequestsOut = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="One JSON line per request.", rich_help_panel=OUTPUT),
]
Report = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A report as an HTML page.", rich_help_panel=OUTPUT)
]
ChromeTrace = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What replicas did over time, for chrome://tracing.",
        rich_help_panel=OUTPUT,
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The event log; -NAME is added for each of several policies.",
        rich_help_panel=OUTPUT,
    ),
]
LogScores = Annotated[
    bool,
    typer.Option(
        "--log-scores",
        help="Let the log say what was weighed for each decision, for `millrace route`.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing but results and errors.", rich_help_panel=OUTPUT),
]
