"""Multi-turn conversations on three real engines: cache hits and times to the first token, by routing policy.

    python benchmarks/live_routing.py [--policies random,millrace] [--sessions N] [--turns N] [--rounds N]
                                      [--json] [--write]

Three embedded engines with the demo model, one core's worth of work between them, behind a real gateway. Each
turn's prompt is the whole conversation so far, so it is cached where the turn before was answered. Turns come
on a schedule, whatever became of the one before; prompts are token ids, and no two rounds share any. Policies
take turns within a round, and every figure is over all rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from millrace.bench.load import Load
from millrace.bench.prompts import Planned
from millrace.core.blocks import chain_tokens
from millrace.core.draw import draw_below
from millrace.core.outcome import Outcome
from millrace.core.stats import percentile
from millrace.launch import Fleet, engine_command, gateway_command
from millrace.launch.commands import Front

RESULT = Path(__file__).parent / "results" / "live_routing.json"
MODEL = "demo"
NAMES = ("engine-0", "engine-1", "engine-2")
ENGINE = ("--kv-blocks", "512", "--max-num-batched-tokens", "128")
FIRST_TOKEN, TOKENS = 256, 3500
NEW_TOKENS = 150  # that each turn adds to the prompt
ANSWER_TOKENS = 8
TURN_S = 3.0


def main() -> None:
    """Measure and print; `--write` keeps the result beside the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", default="random,round_robin,millrace", help="with commas between")
    parser.add_argument("--sessions", type=int, default=16, help="conversations at a time")
    parser.add_argument("--turns", type=int, default=6, help="of each conversation")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    found = asyncio.run(measure(args.policies.split(","), args.sessions, args.turns, args.rounds))
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else table(found))


async def measure(policies: Sequence[str], sessions: int, turns: int, rounds: int) -> dict[str, Any]:
    """Play all rounds under every policy, on the same engines."""
    outcomes: dict[str, list[Outcome]] = {policy: [] for policy in policies}
    with TemporaryDirectory() as folder:
        fleet = Fleet(
            engines=[engine_command(MODEL, threads=1, options=ENGINE) for _ in NAMES],
            gateway=front(policies[0]),
            run_dir=Path(folder),
        )
        async with fleet:
            for number in range(rounds):
                for policy in policies:
                    tell(f"round {number + 1} of {rounds}: {policy}")
                    await fleet.switch_gateway(front(policy))
                    talks = conversations(sessions, turns, (number, policy))
                    outcomes[policy] += (await Load(fleet.gateway.url, talks).run()).outcomes
    return {
        "policies": {policy: figures(one) for policy, one in outcomes.items()},
        "machine": f"{platform.machine()}, CPython {platform.python_version()}",
    }


def front(policy: str) -> Front:
    """A gateway under this policy."""
    return gateway_command(routing=policy, names=NAMES, options=("--scrape", "1"))


def conversations(sessions: int, turns: int, names: object) -> list[Planned]:
    """Plan conversations that begin one after the other within the time of a turn."""
    planned = []
    for session in range(sessions):
        length = NEW_TOKENS * turns
        said = [FIRST_TOKEN + draw_below(TOKENS, names, session, n) for n in range(length)]
        starts_s = TURN_S * session / sessions
        for turn in range(turns):
            prompt = tuple(said[: NEW_TOKENS * (turn + 1)])
            planned.append(_turn(f"{session}-{turn}", session, prompt, starts_s + turn * TURN_S))
    return sorted(planned, key=lambda one: one.scheduled_s)


def _turn(id: str, session: int, prompt: tuple[int, ...], scheduled_s: float) -> Planned:
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Planned(
        id=id,
        scheduled_s=scheduled_s,
        group=session,
        prompt=prompt,
        max_tokens=ANSWER_TOKENS,
        blocks=tuple(chain_tokens(prompt, 16, digest_bytes=8)),
        block_tokens=16,
        body=msgspec.json.encode(body),
    )


def figures(outcomes: Sequence[Outcome]) -> dict[str, float | int]:
    """Return what came of the requests of a policy."""
    done = [one for one in outcomes if one.status == "completed"]
    ttfts_s = [one.ttft_s for one in done if one.ttft_s is not None]
    prompts = sum(one.prompt_tokens for one in done)
    return {
        "requests": len(outcomes),
        "completed": len(done),
        "cache_hit": round(sum(one.cached_tokens for one in done) / prompts, 4),
        "ttft_p50_s": round(percentile(ttfts_s, 50), 4),
        "ttft_p95_s": round(percentile(ttfts_s, 95), 4),
    }


def table(found: dict[str, Any]) -> str:
    """Return the result for people."""
    lines = [f"{'policy':<14}{'completed':>10}{'cache hit':>11}{'TTFT p50':>11}{'p95':>10}"]
    for policy, one in found["policies"].items():
        times = f"{one['ttft_p50_s'] * 1e3:>8.0f} ms{one['ttft_p95_s'] * 1e3:>7.0f} ms"
        lines.append(f"{policy:<14}{one['completed']:>10}{one['cache_hit']:>11.1%}{times}")
    return "\n".join(lines)


def tell(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
