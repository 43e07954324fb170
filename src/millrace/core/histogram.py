"""Counts of durations in bins 1 % wide, for samples too many to keep.

Source: histograms of constant relative error, as in DDSketch (Masson et al., VLDB 2019).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from itertools import accumulate
from math import floor, inf, log

from millrace.core.stats import Summary

WIDTH = 1.01
"""The upper end of a bin over its lower end."""

FINEST_S = 1e-9
"""Whatever is shorter shares the first bin."""

_PER_S = 1 / FINEST_S
_BINS_PER_E = 1 / log(WIDTH)


class Histogram:
    """Durations in seconds, each counted so many times.

    Their count, mean, least and most are exact. Any other is taken for the middle of its bin, which is off
    by 0.5 % at most.
    """

    __slots__ = ("_bins", "_max_s", "_min_s", "_sum_s", "count")

    def __init__(self) -> None:
        self.count = 0
        self._sum_s = 0.0
        self._min_s, self._max_s = inf, -inf
        self._bins: defaultdict[int, int] = defaultdict(int)

    @property
    def sum_s(self) -> float:
        """All durations together."""
        return self._sum_s

    def bins(self) -> dict[int, int]:
        """How many are in each bin that is not empty; bin n begins at FINEST_S * WIDTH**n."""
        return dict(self._bins)

    def add(self, value_s: float, times: int = 1) -> None:
        """Count a duration so many times, 0 or more."""
        if times:
            self.add_line(value_s, 0.0, 1, times)

    def add_line(self, first_s: float, gain_s: float, steps: int, times: int) -> None:
        """Count `steps` durations, each `gain_s` longer than the last, so many times each; neither is 0.

        It takes as long as there are bins between the first and the last, however many they are.
        """
        count = steps * times
        if steps == 1:
            last_s = first_s
            low = high = int(log(first_s * _PER_S) * _BINS_PER_E) if first_s > FINEST_S else 0
        else:
            last_s = first_s + gain_s * (steps - 1)
            if gain_s < 0:  # the same ones, from the other end
                first_s, last_s, gain_s = last_s, first_s, -gain_s
            low = int(log(first_s * _PER_S) * _BINS_PER_E) if first_s > FINEST_S else 0
            high = int(log(last_s * _PER_S) * _BINS_PER_E) if last_s > FINEST_S else 0
        self.count += count
        self._sum_s += count * 0.5 * (first_s + last_s)
        if first_s < self._min_s:
            self._min_s = first_s
        if last_s > self._max_s:
            self._max_s = last_s
        if low < high:
            count = times * self._spread(range(low, high), first_s, gain_s, steps, times)
        self._bins[high] += count

    def _spread(self, bins: range, first_s: float, gain_s: float, steps: int, times: int) -> int:
        """Count those that fall into these bins; return how many steps are left for the one after them."""
        edge_s = FINEST_S * WIDTH**bins.start
        before = 0
        for place in bins:
            edge_s *= WIDTH
            until = min(int((edge_s - first_s) / gain_s) + 1, steps)
            if until > before:
                self._bins[place] += (until - before) * times
                before = until
        return steps - before

    def merge(self, other: Histogram) -> None:
        """Count all that another one has counted, too."""
        self.count += other.count
        self._sum_s += other._sum_s
        self._min_s = min(self._min_s, other._min_s)
        self._max_s = max(self._max_s, other._max_s)
        for place, count in other._bins.items():
            self._bins[place] += count

    def summary(self) -> Summary | None:
        """Summarise what was counted; None if that is nothing."""
        if not self.count:
            return None
        p50, p75, p90, p95, p99 = (self._percentile(percent) for percent in (50, 75, 90, 95, 99))
        return Summary(
            count=self.count,
            mean=self._sum_s / self.count,
            min=self._min_s,
            p50=p50,
            p75=p75,
            p90=p90,
            p95=p95,
            p99=p99,
            max=self._max_s,
        )

    def _percentile(self, percent: float) -> float:
        """The same as of the durations themselves: between two of them it interpolates."""
        position = percent / 100 * (self.count - 1)
        below = floor(position)
        low, high = self._nth(below), self._nth(min(below + 1, self.count - 1))
        return low + (high - low) * (position - below)

    def _nth(self, rank: int) -> float:
        """Return the duration of a rank, counted from 0, shortest first."""
        places = sorted(self._bins)
        until = list(accumulate(self._bins[place] for place in places))
        middle_s: float = FINEST_S * WIDTH ** (places[bisect_right(until, rank)] + 0.5)
        return max(self._min_s, min(middle_s, self._max_s))
