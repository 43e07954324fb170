"""A few answers that run on delay everybody's first token; capping whose do it gives most of that back.

The measures first: CSR@1k, 3k and 5k and the distribution function of 2,000 made-up lengths are those that
sorting all of them gives. Then a simulated fleet: benign requests of 40 tenants with 500 tokens of prompt and
about 175 of answer, below 1,000, and in their place, for one in 20, requests of four tenants whose answers
use up the budget of 5,000 tokens. One H100 with Llama-3-8B runs at most 64 requests at a time, at a rate that
it can take with such traffic and at one that it cannot. Compared are benign first tokens alone, with the
others, and with the guard, which has to learn first who overflows: its figures are of the second half of the
benign requests; what it costs to learn is printed beside them. The limits, 1.5x and 15 %, are this project's.
The paper measures models and a reminder; neither is simulated, nor is what a capped answer is worth.

Source: BenchOverflow: Measuring Overflow in Large Language Models via Plain-Text Prompts, on arXiv since
January 2026; its number is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, exp, log, pi, sqrt

from millrace.claims import Check, Kind
from millrace.control import Controller, ControlSettings
from millrace.core.answer_lengths import BUDGET_TOKENS, SATURATIONS, AnswerLengths
from millrace.core.draw import draw
from millrace.core.fleet_spec import parse_fleet
from millrace.core.overflow import GuardSettings, OverflowGuard
from millrace.core.request import Slo
from millrace.core.stats import percentile
from millrace.core.trace import TraceRecord
from millrace.policies import load
from millrace.simulate import servers, simulate
from millrace.simulate.job import jobs_of

KIND: Kind = "simulated"
FLEET = "1x h100 llama-3-8b max_num_seqs=64"
REQUESTS = 15_000
RATES_RPS = {"at ease": 6.0, "crowded": 12.0}
OVERFLOWING = 0.05
LENGTHS = 2000


def measure() -> list[Check]:
    """Hold the measures to a sorted list, then simulate three kinds of traffic at two rates."""
    return [_exactness(), *(check for name in RATES_RPS for check in _traffic(name))]


def _exactness() -> Check:
    """Compare with counting all of the lengths, at each of them and at each CSR."""
    lengths, made = AnswerLengths(LENGTHS), [_answer_tokens(n) for n in range(LENGTHS)]
    for tokens in made:
        lengths.see(tokens)
    places = {*made, *SATURATIONS}
    off = [lengths.ecdf(place) - sum(one <= place for one in made) / LENGTHS for place in places]
    off += [lengths.saturation(place) - sum(one >= place for one in made) / LENGTHS for place in places]
    return Check(what="CSR and distribution function, largest error", value=max(map(abs, off)), at_most=0)


def _traffic(name: str) -> Iterator[Check]:
    rate_rps, guard = RATES_RPS[name], OverflowGuard(GuardSettings(caps=True))
    alone = benign_ttft_s(rate_rps, overflowing=False)
    beside = benign_ttft_s(rate_rps)
    guarded = benign_ttft_s(rate_rps, guard)
    base, settled = percentile(alone, 95), len(alone) // 2
    later = percentile(guarded[settled:], 95) / percentile(alone[settled:], 95)
    yield Check(what=f"{name}, benign p95 TTFT alone", value=1000 * base, unit=" ms")
    yield Check(
        what=f"{name}, with 5% overflow over alone",
        value=percentile(beside, 95) / base,
        unit="x",
        at_least=1.5,
    )
    yield Check(what=f"{name}, guarded over alone, once learned", value=later, unit="x", at_most=1.15)
    whole = percentile(guarded, 95) / base
    yield Check(what=f"{name}, guarded over alone, learning included", value=whole, unit="x")
    beyond = sum(guard.beyond.values())
    yield Check(what=f"{name}, guarded, tokens beyond the usual", value=beyond)


def workload(rate_rps: float, *, overflowing: bool = True) -> Iterator[TraceRecord]:
    """Yield requests with exponential gaps; without those that overflow, the others are the same."""
    t_s = 0.0
    for n in range(REQUESTS):
        t_s -= log(_chance("gap", n)) / rate_rps
        long = _overflows(n)
        if overflowing or not long:
            yield TraceRecord(
                id=f"{n}",
                t_s=t_s,
                input_tokens=500,
                output_tokens=_answer_tokens(n),
                max_tokens=BUDGET_TOKENS,
                tenant=f"{'long' if long else 'benign'}{int(_chance('tenant', n) * (4 if long else 40))}",
            )


def benign_ttft_s(
    rate_rps: float, guard: OverflowGuard | None = None, *, overflowing: bool = True
) -> list[float]:
    """Return the times to the first token of the benign requests, in order of arrival."""
    groups = parse_fleet(FLEET)
    found = simulate(
        jobs_of(workload(rate_rps, overflowing=overflowing), groups[0].model.name, Slo()),
        servers(groups),
        Controller(
            load("routing", "least_work"),
            load("queueing", "fcfs"),
            ControlSettings(max_held=REQUESTS, max_hold_s=1e6),
        ),
        load("batching", "split_fuse"),
        guard=guard,
    )
    benign = sorted((int(one.id), one.ttft_s) for one in found.outcomes if not _overflows(int(one.id)))
    return [ttft_s for _, ttft_s in benign if ttft_s is not None]


def _overflows(n: int) -> bool:
    return _chance("overflow", n) < OVERFLOWING


def _answer_tokens(n: int) -> int:
    if _overflows(n):
        return BUDGET_TOKENS
    normal = sqrt(-2 * log(_chance("radius", n))) * cos(2 * pi * _chance("angle", n))
    return max(1, min(SATURATIONS[0] - 1, round(150 * exp(0.6 * normal))))


def _chance(*names: object) -> float:
    return (draw("benchoverflow", *names) + 1) / (2**64 + 1)
