"""What became of one request, live or simulated, and what a set of them says of a policy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from millrace.core.request import Slo
from millrace.core.stats import Summary, summary

Status = Literal["completed", "refused", "failed", "cancelled"]


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request from its scheduled arrival to its end; moments in seconds on the run's clock.

    Latency counts from `scheduled_s`, when the request was due, so a late client cannot hide a queue.
    """

    id: str
    scheduled_s: float
    status: Status
    prompt_tokens: int
    output_tokens: int = 0
    cached_tokens: int = 0
    replica: str | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """Time to first token."""
        return None if self.first_token_s is None else self.first_token_s - self.scheduled_s

    @property
    def e2e_s(self) -> float | None:
        """Time to the whole answer."""
        return None if self.finished_s is None else self.finished_s - self.scheduled_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None for answers of one token."""
        if self.first_token_s is None or self.finished_s is None or self.output_tokens < 2:
            return None
        return (self.finished_s - self.first_token_s) / (self.output_tokens - 1)

    def meets(self, slo: Slo) -> bool:
        """Whether it completed within the objectives; an objective of None is always met."""
        return (
            self.status == "completed"
            and _within(self.ttft_s, slo.ttft_s)
            and _within(self.tpot_s, slo.tpot_s)
        )


class Measured(Struct, frozen=True, kw_only=True):
    """What a run says of a policy. Latencies are of completed requests; None where there were none.

    `throughput` and `goodput` divide by the time from the first scheduled arrival to the last end;
    goodput counts only requests that met the objectives, and so does `slo_attainment`, over all requests.
    """

    requests: int
    completed: int
    refused: int
    failed: int
    cancelled: int
    duration_s: float
    ttft_s: Summary | None
    tpot_s: Summary | None
    e2e_s: Summary | None
    throughput_rps: float
    throughput_tokens_per_s: float
    goodput_rps: float
    slo_attainment: float
    cache_hit_ratio: float


def measure(outcomes: Iterable[Outcome], slo: Slo) -> Measured:
    """Summarise a run; an empty run measures as zeros."""
    every = list(outcomes)
    done = [o for o in every if o.status == "completed"]
    good = sum(o.meets(slo) for o in every)
    duration_s = _duration_s(every)
    per_s = 1 / duration_s if duration_s else 0.0
    prompt_tokens = sum(o.prompt_tokens for o in done)
    return Measured(
        requests=len(every),
        completed=len(done),
        refused=_count(every, "refused"),
        failed=_count(every, "failed"),
        cancelled=_count(every, "cancelled"),
        duration_s=duration_s,
        ttft_s=_summary(o.ttft_s for o in done),
        tpot_s=_summary(o.tpot_s for o in done),
        e2e_s=_summary(o.e2e_s for o in done),
        throughput_rps=len(done) * per_s,
        throughput_tokens_per_s=sum(o.output_tokens for o in done) * per_s,
        goodput_rps=good * per_s,
        slo_attainment=good / len(every) if every else 0.0,
        cache_hit_ratio=sum(o.cached_tokens for o in done) / prompt_tokens if prompt_tokens else 0.0,
    )


def _within(value_s: float | None, limit_s: float | None) -> bool:
    return limit_s is None or value_s is None or value_s <= limit_s


def _count(outcomes: list[Outcome], status: Status) -> int:
    return sum(o.status == status for o in outcomes)


def _summary(values: Iterable[float | None]) -> Summary | None:
    known = [v for v in values if v is not None]
    return summary(known) if known else None


def _duration_s(outcomes: list[Outcome]) -> float:
    if not outcomes:
        return 0.0
    last_s = max(max(o.finished_s or 0.0, o.scheduled_s) for o in outcomes)
    return last_s - min(o.scheduled_s for o in outcomes)
