"""Two tenants on one real engine: what the quiet one's first tokens take when the other one floods.

    python benchmarks/flooding.py [--policies fcfs,vtc] [--seconds S] [--rounds N] [--json] [--write]

An embedded engine with the demo model and four seats, behind a real gateway that holds whoever has no seat.
First it is measured how many requests a second the engine answers when there are always some. Then the
quiet tenant asks at a tenth of that rate while the busy one asks a little more than the engine can answer,
and again while it floods at four times as much. Policies take turns within a round; figures are over all
rounds, and latency counts from the schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from millrace.bench.load import Load
from millrace.bench.prompts import Planned
from millrace.core.draw import draw_below
from millrace.core.outcome import Outcome
from millrace.core.stats import percentile
from millrace.launch import Fleet, engine_command, gateway_command
from millrace.launch.commands import Front

RESULT = Path(__file__).parent / "results" / "flooding.json"
MODEL = "demo"
ENGINE = ("--kv-blocks", "512", "--max-num-seqs", "4")
HOLDING = ("--queue-rule", "engine_queue=0", "--max-hold", "600", "--scrape", "1")
FIRST_TOKEN, TOKENS = 256, 3500
PROMPT_TOKENS, ANSWER_TOKENS = 96, 24
WARM_UP = 80  # requests that tell how many a second are answered
QUIET, STEADY, FLOOD = 0.1, 1.1, 4.4  # shares of that rate


def main() -> None:
    """Measure and print; `--write` keeps the result beside the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", default="fcfs,vtc", help="with commas between")
    parser.add_argument("--seconds", type=float, default=15.0, help="for which each load lasts")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    found = asyncio.run(measure(args.policies.split(","), args.seconds, args.rounds))
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else table(found))


async def measure(policies: Sequence[str], seconds: float, rounds: int) -> dict[str, Any]:
    """Play all rounds under every policy, on the same engine."""
    quiet: dict[tuple[str, str], list[Outcome]] = {}
    with TemporaryDirectory() as folder:
        engine = engine_command(MODEL, threads=1, options=ENGINE)
        fleet = Fleet(engines=[engine], gateway=front(policies[0]), run_dir=Path(folder))
        async with fleet:
            rate = await answered_per_s(fleet.gateway.url)
            for number in range(rounds):
                for policy in policies:
                    await fleet.switch_gateway(front(policy))
                    for name, share in (("steady", STEADY), ("flood", FLOOD)):
                        tell(f"round {number + 1} of {rounds}: {policy}, {name}")
                        plan = [
                            *asking("quiet", QUIET * rate, seconds),
                            *asking("busy", share * rate, seconds),
                        ]
                        done = (await Load(fleet.gateway.url, plan).run()).outcomes
                        kept = [one for one in done if one.id.startswith("quiet")]
                        quiet.setdefault((policy, name), []).extend(kept)
    return {
        "requests_per_s": round(rate, 2),
        "policies": {policy: figures(quiet, policy) for policy in policies},
        "machine": f"{platform.machine()}, CPython {platform.python_version()}",
    }


def front(policy: str) -> Front:
    """A gateway that holds whoever the engine has no seat for."""
    return gateway_command(
        routing="least_work",
        names=("engine-0",),
        options=("--queueing", policy, *HOLDING),
    )


async def answered_per_s(url: str) -> float:
    """Send many requests at once; return how many a second are answered."""
    plan = list(asking("warm-up", 1e6, WARM_UP / 1e6))
    outcomes = (await Load(url, plan).run()).outcomes
    return len(plan) / max(one.e2e_s for one in outcomes if one.e2e_s is not None)


def asking(tenant: str, rate: float, seconds: float) -> Iterator[Planned]:
    """Plan a tenant's requests, evenly spread."""
    for number in range(int(rate * seconds)):
        prompt = tuple(
            FIRST_TOKEN + draw_below(TOKENS, tenant, rate, number, n) for n in range(PROMPT_TOKENS)
        )
        body = {
            "model": MODEL,
            "user": tenant,
            "prompt": prompt,
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        yield Planned(
            id=f"{tenant}-{number}",
            scheduled_s=number / rate,
            group=0,
            prompt=prompt,
            max_tokens=ANSWER_TOKENS,
            blocks=(),
            block_tokens=16,
            body=msgspec.json.encode(body),
        )


def figures(quiet: dict[tuple[str, str], list[Outcome]], policy: str) -> dict[str, float | int]:
    """Return what the quiet tenant's first tokens took, and by how much the flood raised that."""
    found: dict[str, float | int] = {}
    for name in ("steady", "flood"):
        done = [one for one in quiet[policy, name] if one.status == "completed" and one.ttft_s is not None]
        found[f"{name}_requests"] = len(quiet[policy, name])
        found[f"{name}_completed"] = len(done)
        for share in (50, 99):
            waited_s = percentile([one.ttft_s for one in done if one.ttft_s is not None], share)
            found[f"{name}_ttft_p{share}_s"] = round(waited_s, 4)
    found["p99_ratio"] = round(found["flood_ttft_p99_s"] / found["steady_ttft_p99_s"], 3)
    return found


def table(found: dict[str, Any]) -> str:
    """Return the result for people."""
    lines = [f"one engine, {found['requests_per_s']} requests/s; the quiet tenant's TTFT, p50 / p99"]
    for policy, one in found["policies"].items():
        steady = f"{one['steady_ttft_p50_s']:.3f} / {one['steady_ttft_p99_s']:.3f} s"
        flood = f"{one['flood_ttft_p50_s']:.3f} / {one['flood_ttft_p99_s']:.3f} s"
        lines.append(f"{policy:8} busy {steady}   flooded {flood}   p99 x {one['p99_ratio']:.2f}")
    return "\n".join(lines)


def tell(what: str) -> None:
    """Say what goes on."""
    print(what, file=sys.stderr)


if __name__ == "__main__":
    main()
