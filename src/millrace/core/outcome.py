"""What became of one request, live or simulated, and what a set of them says of a policy."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from math import inf
from typing import Literal, get_args

from msgspec import Struct

from millrace.core.request import Slo
from millrace.core.stats import Summary, summary

Status = Literal["completed", "refused", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = get_args(Status)


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request from its scheduled arrival to its end; moments in seconds on the run's clock.

    Its prompt was computed on `prefilled_on`, if not where it was answered. It was moved so many times from
    one replica to another, and stood still for `paused_s` because of that, after its first token.
    Latency counts from `scheduled_s`, when the request was due, so a late client cannot hide a queue.
    """

    id: str
    scheduled_s: float
    status: Status
    prompt_tokens: int
    output_tokens: int = 0
    cached_tokens: int = 0
    replica: str | None = None
    prefilled_on: str | None = None
    moves: int = 0
    paused_s: float = 0.0
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
    Running requests that were moved stood still for `downtime_s`; None if there were none.
    Energy and dollars are those of the whole fleet, its waiting too, also for each token of an answer that
    completed; None is not known.
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
    moves_per_request: float = 0.0
    downtime_s: Summary | None = None
    energy_j: float | None = None
    energy_per_token_j: float | None = None
    cost_usd: float | None = None
    usd_per_million_tokens: float | None = None


class Tally:
    """Sums up outcomes one by one; of each it keeps three numbers, so a run may be longer than memory."""

    __slots__ = (
        "_cached_tokens",
        "_counts",
        "_down_s",
        "_e2e_s",
        "_first_s",
        "_good",
        "_last_s",
        "_moves",
        "_output_tokens",
        "_prompt_tokens",
        "_tpot_limit_s",
        "_tpot_s",
        "_ttft_limit_s",
        "_ttft_s",
    )

    def __init__(self, slo: Slo) -> None:
        self._ttft_limit_s = inf if slo.ttft_s is None else slo.ttft_s
        self._tpot_limit_s = inf if slo.tpot_s is None else slo.tpot_s
        self._counts: dict[Status, int] = dict.fromkeys(STATUSES, 0)
        self._first_s, self._last_s = inf, -inf
        self._ttft_s, self._tpot_s, self._e2e_s = array("d"), array("d"), array("d")
        self._down_s = array("d")
        self._prompt_tokens = self._output_tokens = self._cached_tokens = self._good = self._moves = 0

    def add(self, outcome: Outcome) -> None:
        """Take in one outcome, in no particular order. What its properties say is worked out once, here."""
        scheduled_s, first_token_s, finished_s = (
            outcome.scheduled_s,
            outcome.first_token_s,
            outcome.finished_s,
        )
        self._counts[outcome.status] += 1
        if scheduled_s < self._first_s:
            self._first_s = scheduled_s
        last_s = scheduled_s if finished_s is None or finished_s < scheduled_s else finished_s
        if last_s > self._last_s:
            self._last_s = last_s
        if outcome.moves:
            self._moves += outcome.moves
            if outcome.paused_s:
                self._down_s.append(outcome.paused_s)
        if outcome.status != "completed":
            return
        output_tokens = outcome.output_tokens
        self._prompt_tokens += outcome.prompt_tokens
        self._output_tokens += output_tokens
        self._cached_tokens += outcome.cached_tokens
        in_time = True
        if first_token_s is not None:
            ttft_s = first_token_s - scheduled_s
            self._ttft_s.append(ttft_s)
            in_time = ttft_s <= self._ttft_limit_s
        if finished_s is not None:
            self._e2e_s.append(finished_s - scheduled_s)
            if first_token_s is not None and output_tokens > 1:
                tpot_s = (finished_s - first_token_s) / (output_tokens - 1)
                self._tpot_s.append(tpot_s)
                in_time = in_time and tpot_s <= self._tpot_limit_s
        self._good += in_time

    def measured(self, *, energy_j: float | None = None, cost_usd: float | None = None) -> Measured:
        """Return the summary of what was added so far, with what it took; of nothing, it is zeros."""
        counts, requests = self._counts, sum(self._counts.values())
        duration_s = self._last_s - self._first_s if requests else 0.0
        per_s = 1 / duration_s if duration_s else 0.0
        return Measured(
            requests=requests,
            completed=counts["completed"],
            refused=counts["refused"],
            failed=counts["failed"],
            cancelled=counts["cancelled"],
            duration_s=duration_s,
            ttft_s=summary(self._ttft_s) if self._ttft_s else None,
            tpot_s=summary(self._tpot_s) if self._tpot_s else None,
            e2e_s=summary(self._e2e_s) if self._e2e_s else None,
            throughput_rps=counts["completed"] * per_s,
            throughput_tokens_per_s=self._output_tokens * per_s,
            goodput_rps=self._good * per_s,
            slo_attainment=self._good / requests if requests else 0.0,
            cache_hit_ratio=self._cached_tokens / self._prompt_tokens if self._prompt_tokens else 0.0,
            moves_per_request=self._moves / requests if requests else 0.0,
            downtime_s=summary(self._down_s) if self._down_s else None,
            energy_j=energy_j,
            energy_per_token_j=self._each(energy_j),
            cost_usd=cost_usd,
            usd_per_million_tokens=self._each(cost_usd, of=1e6),
        )

    def _each(self, spent: float | None, *, of: float = 1.0) -> float | None:
        """Divide what was spent among so many output tokens; None where there is nothing to divide."""
        return None if spent is None or not self._output_tokens else spent / self._output_tokens * of


def measure(outcomes: Iterable[Outcome], slo: Slo) -> Measured:
    """Summarise a run; an empty run measures as zeros."""
    tally = Tally(slo)
    for outcome in outcomes:
        tally.add(outcome)
    return tally.measured()


def _within(value_s: float | None, limit_s: float | None) -> bool:
    return limit_s is None or value_s is None or value_s <= limit_s
