"""How often a fleet tries again in total: a share of its traffic, so that failures cannot multiply the load.

Sources: the retry budgets of Finagle and Linkerd (a share of the traffic, and a few each second besides) and
the retry bucket of the AWS SDKs (room for a hundred).
"""

from __future__ import annotations

from math import inf

from msgspec import Struct


class RetryBudget(Struct, frozen=True, kw_only=True):
    """Retries earned: `ratio` of one with every request admitted, and `floor_per_s` as time passes.

    They are saved up to `reserve` and that `ratio` of what is in flight, and at first they are all there. One
    engine's death costs a retry for each request it had not begun to answer, all at once: the default saves
    a hundred on a quiet fleet, and a tenth of a busy one, while engines that fail again and again
    get a tenth more traffic and not three times as much.
    """

    ratio: float = 0.1
    reserve: int = 100
    floor_per_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("ratio", "reserve", "floor_per_s"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} of a retry budget is {getattr(self, name)}; it must be from 0")


class Purse:
    """What is left of a budget. It is counted up only when asked for, so arrivals cost nothing."""

    def __init__(self, budget: RetryBudget) -> None:
        self._budget = budget
        self._left = inf
        self._arrivals = 0
        self._now_s = 0.0

    def take(self, now_s: float, *, arrivals: int, in_flight: int) -> bool:
        """Take one retry if there is one; `arrivals` were admitted so far, `in_flight` are not over."""
        budget = self._budget
        earned = budget.ratio * (arrivals - self._arrivals) + budget.floor_per_s * (now_s - self._now_s)
        left = min(self._left + earned, budget.reserve + budget.ratio * in_flight)
        self._left = left - 1 if left >= 1 else left
        self._arrivals, self._now_s = arrivals, now_s
        return left >= 1
