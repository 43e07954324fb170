"""Sending a product's pieces while it is computed makes sublayers 30 % faster (geomean), at most 47 %.

Priced as a term of the cost model: n equal pieces, each sent when it is there, take (produce + send + (n - 1)
max(produce, send)) / n. That closed form is compared with following the pieces one by one for 1,000 random
sublayers. Then the four communication-heavy sublayers of T-NLG (hidden 4,256, 8 and 16 devices) are priced
with the A100's measured matrix products and the all-reduce fitted to measurements over 8 devices. Taken to be
hidden is the first half of the all-reduce, the reduce-scatter; the all-gather follows, so no more than 50 %
can be gained, which the paper's largest figure agrees with. Steps of 8,192 tokens. The sweep names the ratios
of sending to computing at which 30 % and 47 % are reached. No such hardware is here, and contention for
memory is not modelled.

Source: Pati et al., T3: Transparent Tracking & Triggering for Fine-grained Overlap of Compute & Collectives,
arXiv:2401.16677.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log

from millrace.claims import Check, Kind
from millrace.claims.measured import all_reduce
from millrace.core.catalogue import device
from millrace.core.chance import Chance
from millrace.core.cost.efficiency import efficiency_of
from millrace.core.overlap import fused_s, fused_speedup, relayed_s
from millrace.core.stats import mean

KIND: Kind = "modelled"
SUBLAYERS = 1000
PIECES = 64  # tiles of a product that leave one after the other
HIDDEN = 4256
TOKENS = 8192
# Weights of the sublayer before each all-reduce, in units of hidden squared: attention's output and the
# MLP's second product forward, QKV and the MLP's first product backward.
PRODUCTS = (1, 4, 3, 4)


def measure() -> list[Check]:
    """Compare the closed form with the pieces themselves, sweep the ratio, and price T-NLG's sublayers."""
    gains = list(_t_nlg_gains())
    ratios = [i / 1000 for i in range(1, 4001)]
    return [
        Check(what="closed form against pieces, largest gap", value=_largest_gap(), at_most=1e-9),
        Check(what="random sublayers whose gain leaves its bounds", value=_out_of_bounds(), at_most=0),
        Check(what="sending/computing from which 30% is reached", value=_reaching(1.30, ratios)),
        Check(what="sending/computing from which 47% is reached", value=_reaching(1.47, ratios)),
        Check(
            what="T-NLG sublayers, geomean gain",
            value=100 * (exp(mean(map(log, gains))) - 1),
            unit="%",
            at_least=20,
            at_most=40,
        ),
        Check(what="T-NLG sublayers, largest gain", value=100 * (max(gains) - 1), unit="%", at_most=50),
    ]


def _random_sublayers() -> Iterator[tuple[float, float, int]]:
    chance = Chance("t3-overlap")
    for _ in range(SUBLAYERS):
        produce_s, send_s = (exp(log(1e-6) + chance.uniform() * log(1e4)) for _ in range(2))
        yield produce_s, send_s, 1 + chance.below(256)


def _largest_gap() -> float:
    return max(abs(relayed_s([(a / n, b / n)] * n) / fused_s(a, b, n) - 1) for a, b, n in _random_sublayers())


def _out_of_bounds() -> int:
    """A gain lies between none and hiding the shorter part completely."""
    slack = 1e-9
    return sum(
        not 1 - slack <= fused_speedup(a, b, n) <= (a + b) / max(a, b) + slack
        for a, b, n in _random_sublayers()
    )


def _reaching(speedup: float, ratios: list[float]) -> float:
    return min(r for r in ratios if _gain(1.0, r) >= speedup)


def _gain(compute_s: float, all_reduce_s: float) -> float:
    """The all-reduce's first half is sent piece by piece, the second follows."""
    half_s = all_reduce_s / 2
    return fused_speedup(compute_s, half_s, PIECES, rest_s=half_s)


def _t_nlg_gains() -> Iterator[float]:
    a100 = device("a100-80g")
    flops = a100.flops * efficiency_of(a100.name).compute
    sent_s = all_reduce("a100_dgx", 8).fitted().all_reduce_s(2 * TOKENS * HIDDEN)
    for devices in (8, 16):
        for weights in PRODUCTS:
            yield _gain(2 * TOKENS * weights * HIDDEN**2 / devices / flops, sent_s)
