"""Weighted shortest processing time first: the most priority per token of work.

The work of a request is its prompt, and its answer as far as anything predicts its length: `expected_tokens`,
or what the gateway's predictor said. An answer's token counts as `answer_weight` of a prompt's. A priority of
p from 0 on weighs 1 + p; one below 0 weighs 1 / (1 - p).

This minimises the weighted mean of completion times on one server. Long requests wait: `starvation_s` of the
queue's settings bounds for how long.

Source: Smith, Various Optimizers for Single-Stage Production (1956); the WSPT queue of NVIDIA Dynamo's
router, whose work is the prompt alone (`answer_weight=0` here).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from millrace.core.event import Event
from millrace.core.fleet import FleetView, Held, Left, Sent
from millrace.core.lines import Lines
from millrace.core.request import Request


@dataclass(slots=True)
class Policy:
    """`answer_weight` is how much of a prompt's token an answer's token costs."""

    answer_weight: float = 1.0
    _lines: Lines = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.answer_weight < inf:
            raise ValueError(f"answer_weight is {self.answer_weight}; it must be a number from 0")
        self._lines = Lines(lambda held: self._rank(held.request))

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return sorted(held, key=self._rank)

    def note(self, fact: Event | Sent | Held | Left) -> None:
        """Keep who is held in order."""
        self._lines.note(fact)

    def first(self, model: str, fleet: FleetView) -> str | None:
        return self._lines.first(model)

    def _rank(self, request: Request) -> float:
        """Tokens of work per weight: the less, the sooner."""
        expected = request.expected_tokens
        if expected is None and request.predicted is not None:
            expected = request.predicted.tokens
        work = request.prompt_tokens + self.answer_weight * (expected or 0)
        priority = request.priority
        return work / (1 + priority) if priority >= 0 else work * (1 - priority)
