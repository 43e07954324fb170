"""Inter-token latency of a simulated engine: the time between two tokens of a request, for every two.

Whoever decodes gets a token at the end of each step, so a run of like steps has few different gaps: they are
counted together, and only those of sequences that were left out for a while are counted one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from millrace.core.histogram import Histogram
from millrace.replica.batch import Batch
from millrace.replica.executor import Run
from millrace.replica.sequence import Sequence


class Timing(Struct, frozen=True, gc=False):
    """When the steps of a run end: `count` of them, the first after `first_s`, each `gain_s` longer.

    Another one of `closing_s` may follow; 0 if not.
    """

    start_s: float
    first_s: float
    gain_s: float
    count: int
    closing_s: float = 0.0


class Gaps:
    """Counts the gaps of one replica in `seen`, told of its runs or of its steps, but not of both.

    All decodes had their last token at one moment but for those `_apart`, which did not go along since.
    `_lost` are those that have none of their blocks, and had their last token before they were preempted.
    """

    __slots__ = ("_apart", "_gone", "_last_s", "_lost", "seen")

    def __init__(self) -> None:
        self.seen = Histogram()
        self.forget()

    def forget(self) -> None:
        """Forget everybody, but not their gaps: the replica begins anew."""
        self._last_s = 0.0
        self._apart: dict[Sequence, float] = {}
        self._lost: dict[Sequence, float] = {}
        self._gone: list[Sequence] = []

    def preempted(self, displaced: Iterable[Sequence]) -> None:
        """Note who lost its blocks: all that had to make room for the next step."""
        for sequence in displaced:
            if sequence.sampled and sequence not in self._lost:
                self._lost[sequence] = self._apart.pop(sequence, self._last_s)

    def lose(self, sequence: Sequence, *, busy: bool) -> None:
        """Note that a sequence is taken back: it gets no token any more, not that of the step under way."""
        self._lost.pop(sequence, None)
        if busy:
            self._gone.append(sequence)

    def take(self, sequence: Sequence) -> float:
        """Return when a sequence that leaves between two steps had its last token."""
        apart_s = self._apart.pop(sequence, self._last_s)
        return self._lost.pop(sequence, apart_s)

    def await_next(self, sequence: Sequence, last_s: float) -> None:
        """Note that a sequence, which had its last token then, goes on here."""
        self._lost[sequence] = last_s

    def each(self, emitted: Iterable[Sequence], now_s: float) -> None:
        """Count the gaps that a step ends, of everybody who has a token from it."""
        last_s = self._lost
        for sequence in emitted:
            before_s = last_s.pop(sequence, None)
            if before_s is not None:
                self.seen.add(now_s - before_s)
            if sequence.generated < sequence.max_tokens:
                last_s[sequence] = now_s

    def ended(self, run: Run, batch: Batch, when: Timing, end_s: float) -> None:
        """Count the gaps of a run that took until `end_s`, before the replica books it.

        Whose first token it brings is told by its last iteration, so of one that closes it is that.
        """
        if run.decodes:
            if self._last_s == when.start_s and not (self._apart or self._gone or run.paused):
                self.seen.add_line(when.first_s, when.gain_s, when.count, run.decodes)
                if when.closing_s:
                    self.seen.add(when.closing_s, run.decodes)
            else:
                self._uneven(run, batch, when)
            self._last_s = end_s
        elif not batch.decodes.members:
            self._last_s = end_s
        else:
            for chunk in run.prefills:
                if chunk.emits:
                    self._apart[chunk.sequence] = end_s
        if self._lost:
            for chunk in run.prefills:
                if chunk.emits:
                    before_s = self._lost.pop(chunk.sequence, None)
                    if before_s is not None:
                        self.seen.add(end_s - before_s)
        if self._gone:
            self._gone.clear()

    def cut_off(self, run: Run, batch: Batch, when: Timing) -> None:
        """Count the gaps of the steps of a run that ended before the replica went down."""
        if run.decodes:
            self._gone.clear()
            self._uneven(run, batch, when)

    def _uneven(self, run: Run, batch: Batch, when: Timing) -> None:
        """Count the gaps of a run whose sequences do not all begin, or end, together."""
        first_s, gain_s = when.first_s, when.gain_s
        # How many steps there are, and how many of them are on the line between the first and the last one.
        count, between = (when.count + 1, when.count - 1) if when.closing_s else (when.count, when.count - 2)
        members = batch.decodes.members
        paused = dict.fromkeys(run.paused)
        gone = {sequence for sequence in self._gone if sequence in members and sequence not in paused}
        late_s = [
            moment_s
            for sequence, moment_s in self._apart.items()
            if sequence in members and sequence not in paused and not (count == 1 and sequence in gone)
        ]
        going, finishing = run.decodes, run.decodes - len(gone)
        then_s = when.start_s + first_s
        self.seen.add(then_s - self._last_s, (going if count > 1 else finishing) - len(late_s))
        for moment_s in late_s:
            self.seen.add(then_s - moment_s)
        if between > 0:
            self.seen.add_line(first_s + gain_s, gain_s, between, going)
        if count > 1:
            self.seen.add(when.closing_s or first_s + gain_s * (count - 1), finishing)
        self._apart = {sequence: self._apart.get(sequence, self._last_s) for sequence in paused}
