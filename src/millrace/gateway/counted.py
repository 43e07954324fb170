"""What the metrics page says of one request."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from millrace.core.request import Request
from millrace.gateway.guarding import Guarded
from millrace.gateway.metrics import Series
from millrace.gateway.usage import Usage

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway


class Counted:
    """Counts a request from its arrival to its end, for the model that is to answer it and the replica.

    `fresh` in the turn in which it came: what passes until it is sent is the gateway's own overhead then.
    """

    __slots__ = (
        "_arrived_s",
        "_failed_by",
        "_gateway",
        "_series",
        "_started_s",
        "fresh",
        "guarded",
        "model",
        "request",
    )

    def __init__(self, gateway: Gateway, request: Request) -> None:
        self._gateway = gateway
        self.request = request
        self.model = request.model
        self.fresh = True
        self.guarded: Guarded | None = None
        self._failed_by = ""
        self._arrived_s = monotonic()
        self._started_s: float | None = None
        self._series: Series | None = None

    def gap(self, seconds: float) -> None:
        """A stream's next tokens came this long after the last."""
        self._counted().itl.observe(seconds)

    def _counted(self) -> Series:
        if self._series is None:  # never sent anywhere
            self._series = self._gateway.metrics.series(self._gateway.known_model(self.model))
        return self._series

    def _count_sent(self, now_s: float) -> None:
        if self._failed_by:
            self._gateway.metrics.retries[self._failed_by] += 1
        elif self.fresh:
            self._gateway.metrics.overhead.observe(now_s - self._arrived_s)

    def _count_first(self, now_s: float) -> None:
        self._started_s = now_s
        self._counted().ttft.observe(now_s - self._arrived_s)

    def _count_pace(self, tokens: int) -> None:
        if self._started_s is not None and tokens > 1:
            self._counted().tpot.observe((monotonic() - self._started_s) / (tokens - 1))

    def _count_dropped(self, reason: str | None) -> None:
        """Count a request that never got to an engine, if there is a reason for it."""
        if reason is not None:
            self._gateway.metrics.dropped[self._gateway.known_model(self.model), reason] += 1

    def _count_length(self, usage: Usage) -> None:
        """Let the guard against overflow learn from an answer that ended."""
        guarding = self._gateway.guarding
        if guarding is not None and self.guarded is not None:
            guarding.ended(self.guarded, usage)

    def _count_end(self, outcome: str, status: int | None) -> Series:
        series = self._series or self._counted()
        series.end(outcome, monotonic() - self._arrived_s)
        if status is not None:
            self._gateway.metrics.errors[self._gateway.known_model(self.model), str(status)] += 1
        return series
