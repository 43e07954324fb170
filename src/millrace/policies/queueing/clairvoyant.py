"""Whose answer is predicted to be shortest goes first, but nobody is overtaken for ever.

The prediction is what the gateway's predictor made of a request's wording. A request without one keeps its
place: nobody overtakes it who came later. One that rules out no class of lengths says nothing, and counts as
long as the mean of the answers so far. Predicted lengths are corrected for each tenant by the lengths that
its answers had, by powers of two of the prediction, the more the more there were.

Who has waited for `patience_s` is in front of all who have not, first come first. So with one request at a
time nobody waits longer than first come first served would let it, plus `patience_s`, plus the longest single
answer.

Predictions that stop ranking do harm, so they are watched: of pairs of answers of clearly different expected
lengths among the last ones, the share whose true lengths are in that order. Below `distrust_below` all
requests go first come first served, until it is `trust_from` again. Answers are remembered by expected
length, the last `remembered` of each power of four, or else a queue that is worked off from the short end
would look like chance.

Source: Clairvoyant (arXiv:2606.07248), a sidecar for serial backends, whose order is by class and time of
arrival; the correction, the sets and the watch are this project's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop
from itertools import groupby
from math import exp, inf, log

from msgspec import Struct

from millrace.core.answer_length import LengthPrediction
from millrace.core.event import Cancelled, Event, Failed, Finished
from millrace.core.fleet import FleetView, Sent
from millrace.core.request import Request

MOST_TENANTS = 1024
PRIOR_ANSWERS = 8.0
"""How many answers count as much as the prediction itself."""
KEEP = 0.98
"""What an answer counts for after the next one of its kind."""


class Correction(Struct):
    """What a kind of answers had over what was predicted: the mean logarithm, and how many it is of."""

    log_ratio: float = 0.0
    answers: float = 0.0

    def learn(self, log_ratio: float) -> None:
        """Count one more answer; older ones count less and less."""
        self.answers = self.answers * KEEP + 1
        self.log_ratio += (log_ratio - self.log_ratio) / self.answers

    @property
    def factor(self) -> float:
        """By what to multiply a prediction."""
        return exp(self.log_ratio * self.answers / (self.answers + PRIOR_ANSWERS))


class Mean(Struct):
    """The mean of the answers so far; older ones count less and less."""

    tokens: float = 0.0
    answers: float = 0.0

    def learn(self, tokens: int) -> None:
        """Count one more answer."""
        self.answers = self.answers * KEEP + 1
        self.tokens += (tokens - self.tokens) / self.answers


class Watch:
    """Counts pairs of answers of different expected lengths, by whether their true lengths are in order."""

    __slots__ = ("_bands", "_last", "_remembered", "pairs", "right")

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._last: dict[int, deque[int]] = {}
        self._bands: dict[int, list[int]] = {}
        self.pairs = 0
        self.right = 0.0

    def see(self, expected: float, tokens: int) -> None:
        """Take in an answer; the oldest one of its band is forgotten when there are too many."""
        band = int(log(max(1.0, expected), 4))
        last, lengths = self._last.setdefault(band, deque()), self._bands.setdefault(band, [])
        if len(last) == self._remembered:
            oldest = last.popleft()
            del lengths[bisect_left(lengths, oldest)]
            self._count(band, oldest, -1)
        last.append(tokens)
        insort(lengths, tokens)
        self._count(band, tokens, 1)

    def _count(self, band: int, tokens: int, sign: int) -> None:
        for other, lengths in self._bands.items():
            if other != band:
                below, above = bisect_left(lengths, tokens), len(lengths) - bisect_right(lengths, tokens)
                equal = len(lengths) - below - above
                self.pairs += sign * len(lengths)
                self.right += sign * ((below if other < band else above) + equal / 2)


class Expected(Struct, frozen=True):
    """A request that was sent: whose it is, what was predicted, and what that was corrected to, if it says
    anything."""

    tenant: str
    tokens: int
    corrected: float | None


@dataclass(slots=True)
class Policy:
    """`patience_s` is how long a request may be overtaken. The watch says nothing before `evidence` pairs."""

    patience_s: float = 60.0
    remembered: int = 32
    evidence: int = 64
    distrust_below: float = 0.55
    trust_from: float = 0.6
    trusted: bool = field(init=False, repr=False, compare=False, default=True)
    _sent: dict[str, Expected] = field(init=False, repr=False, compare=False, default_factory=dict)
    _corrections: OrderedDict[str, dict[int, Correction]] = field(
        init=False, repr=False, compare=False, default_factory=OrderedDict
    )
    _mean: Mean = field(init=False, repr=False, compare=False, default_factory=Mean)
    _watch: Watch = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.patience_s < inf:
            raise ValueError(f"patience_s is {self.patience_s}; it must be a number of seconds from 0")
        if self.remembered < 1:
            raise ValueError(f"remembered is {self.remembered}; a watch takes at least 1 answer")
        if not 0 <= self.distrust_below <= self.trust_from <= 1:
            raise ValueError(
                f"distrust_below is {self.distrust_below}; it must be at most trust_from, a share"
            )
        self._watch = Watch(self.remembered)

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        waiting = list(held)
        if len(waiting) < 2 or not self.trusted:
            return waiting
        return self._sorted(waiting, fleet)

    def _sorted(self, waiting: Sequence[Request], fleet: FleetView) -> Iterator[Request]:
        due = [self._is_due(request, fleet) for request in waiting]
        yield from (request for request, is_due in zip(waiting, due, strict=True) if is_due)
        rest = [request for request, is_due in zip(waiting, due, strict=True) if not is_due]
        for known, found in groupby(rest, lambda request: request.predicted is not None):
            group = list(found)
            yield from self._shortest_first(group) if known else group

    def _shortest_first(self, group: Sequence[Request]) -> Iterator[Request]:
        """A heap, since mostly the first alone is asked for; places decide between equals."""
        heap = [(self.expected_tokens(request), place) for place, request in enumerate(group)]
        heapify(heap)
        while heap:
            yield group[heappop(heap)[1]]

    def expected_tokens(self, request: Request) -> float:
        """Return the length that a predicted answer counts for here, corrected by what came of others."""
        assert request.predicted is not None
        tokens = request.predicted.tokens
        if not request.predicted.rules_out:
            return self._mean.tokens if self._mean.answers else float(tokens)
        known = self._corrections.get(request.tenant, {}).get(tokens.bit_length())
        return tokens * known.factor if known else float(tokens)

    def note(self, fact: Event | Sent) -> None:
        """Learn from the ends of answers what predictions of such a length, of this tenant, are worth."""
        if isinstance(fact, Sent):
            if fact.request.predicted is not None:
                self._expect(fact.request, fact.request.predicted)
        elif isinstance(fact, Finished):
            expected = self._sent.pop(fact.request_id, None)
            if expected is not None and fact.output_tokens:
                self._learn(expected, fact.output_tokens)
        elif isinstance(fact, Failed | Cancelled):
            self._sent.pop(fact.request_id, None)

    def _expect(self, request: Request, predicted: LengthPrediction) -> None:
        corrected = self.expected_tokens(request) if predicted.rules_out else None
        self._sent[request.id] = Expected(request.tenant, predicted.tokens, corrected)

    def _learn(self, expected: Expected, tokens: int) -> None:
        self._mean.learn(tokens)
        if expected.corrected is None:
            return
        of_tenant = self._corrections.setdefault(expected.tenant, {})
        self._corrections.move_to_end(expected.tenant)
        if len(self._corrections) > MOST_TENANTS:
            self._corrections.popitem(last=False)
        of_kind = of_tenant.setdefault(expected.tokens.bit_length(), Correction())
        of_kind.learn(log(tokens / expected.tokens))
        watch = self._watch
        watch.see(expected.corrected, tokens)
        if watch.pairs >= self.evidence:
            in_order = watch.right / watch.pairs
            self.trusted = in_order >= (self.distrust_below if self.trusted else self.trust_from)

    def _is_due(self, request: Request, fleet: FleetView) -> bool:
        waited_s = fleet.waited_s(request)
        return waited_s is not None and waited_s >= self.patience_s
