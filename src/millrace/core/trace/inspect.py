"""What a trace is like: rate, burstiness, lengths, and how much of its prompts a cache could reuse."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import floor, fsum, sqrt

from msgspec import Struct

from millrace.core.stats import Summary, summary
from millrace.core.trace.record import TraceRecord


class TraceSummary(Struct, frozen=True, kw_only=True):
    """A trace in numbers; None where it has too little to say.

    `interarrival_cv` is the standard deviation of the gaps between requests over their mean, 1 for Poisson
    arrivals; `burstiness_Ns` the variance of the requests in each N seconds over their mean, also 1 then.
    The hit ratios are those of a cache that never forgets: shares of all prompt blocks, partial ones
    included though they are always missed, and of all prompt tokens. `disordered` counts the requests
    that stand behind a later one. Models and tenants are counted by name, "" for none.
    """

    requests: int
    failed: int
    disordered: int
    duration_s: float
    rate_per_s: float | None
    input_tokens: Summary
    output_tokens: Summary
    interarrival_cv: float | None
    burstiness_1s: float | None
    burstiness_10s: float | None
    burstiness_60s: float | None
    sessions: int
    models: dict[str, int]
    tenants: dict[str, int]
    blocks: int
    unique_blocks: int
    block_hit_ratio: float | None
    token_hit_ratio: float | None


def inspect(records: Iterable[TraceRecord]) -> TraceSummary:
    """Summarise a trace in one pass, keeping three numbers a request and each block id once.

    Raises ValueError for a trace without requests.
    """
    times_s, inputs, outputs = array("d"), array("q"), array("q")
    models: Counter[str] = Counter()
    tenants: Counter[str] = Counter()
    sessions: set[str] = set()
    reuse = _Reuse()
    failed = 0
    for record in records:
        times_s.append(record.t_s)
        inputs.append(record.input_tokens)
        outputs.append(record.output_tokens)
        models[record.model or ""] += 1
        tenants[record.tenant or ""] += 1
        failed += record.failed
        if record.session is not None:
            sessions.add(record.session)
        reuse.add(record)
    if not times_s:
        raise ValueError("records is empty; pass a trace with at least one request")
    ordered_s = sorted(times_s)
    duration_s = ordered_s[-1] - ordered_s[0]
    return TraceSummary(
        requests=len(times_s),
        failed=failed,
        disordered=_disordered(times_s),
        duration_s=duration_s,
        rate_per_s=len(times_s) / duration_s if duration_s else None,
        input_tokens=summary(inputs),
        output_tokens=summary(outputs),
        interarrival_cv=_variation([b - a for a, b in pairwise(ordered_s)]),
        burstiness_1s=_burstiness(ordered_s, 1),
        burstiness_10s=_burstiness(ordered_s, 10),
        burstiness_60s=_burstiness(ordered_s, 60),
        sessions=len(sessions),
        models=dict(models),
        tenants=dict(tenants),
        blocks=reuse.blocks,
        unique_blocks=len(reuse.seen),
        block_hit_ratio=reuse.hits / reuse.blocks if reuse.blocks else None,
        token_hit_ratio=reuse.hit_tokens / sum(inputs) if reuse.blocks and any(inputs) else None,
    )


class _Reuse:
    """Counts what a prefix cache of unlimited size would find: the first unknown block ends a hit."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.blocks = self.hits = self.hit_tokens = 0

    def add(self, record: TraceRecord) -> None:
        hits = next((i for i, b in enumerate(record.blocks) if b not in self.seen), len(record.blocks))
        self.seen.update(record.blocks[hits:])
        self.hits += hits
        self.hit_tokens += hits * record.block_tokens
        self.blocks += len(record.blocks) + (record.tail_block is not None)


def _disordered(times_s: Sequence[float]) -> int:
    latest_s, behind = times_s[0], 0
    for t_s in times_s:
        behind += t_s < latest_s
        latest_s = max(latest_s, t_s)
    return behind


def _burstiness(ordered_s: Sequence[float], bin_s: float) -> float | None:
    """Variance over mean of the counts in consecutive bins, empty ones included; None for a single bin."""
    start_s = ordered_s[0]
    counts = Counter(floor((t_s - start_s) / bin_s) for t_s in ordered_s)
    bins = floor((ordered_s[-1] - start_s) / bin_s) + 1
    if bins == 1:
        return None
    mean = len(ordered_s) / bins
    return fsum(c * c for c in counts.values()) / bins / mean - mean


def _variation(values: Sequence[float]) -> float | None:
    total = fsum(values)
    if not total:
        return None
    mean = total / len(values)
    return sqrt(fsum((v - mean) ** 2 for v in values) / len(values)) / mean
