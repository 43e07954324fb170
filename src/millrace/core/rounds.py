"""Deficit round robin: whose turn it is when each gets so many tokens per round."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from msgspec import Struct


class Turn(Struct, frozen=True):
    """Who comes next: at the so manieth visit from now, and in what place of the round."""

    tenant: str
    visits: int
    place: int


class Rounds:
    """Who takes turns, the one at hand first, and what each has saved towards its next request.

    Source: Shreedhar and Varghese, Efficient Fair Queueing Using Deficit Round Robin (SIGCOMM 1995).
    """

    __slots__ = ("_deficits", "_quantum_tokens", "_weights")

    def __init__(self, quantum_tokens: float, weights: Mapping[str, float]) -> None:
        self._quantum_tokens, self._weights = quantum_tokens, weights
        self._deficits: dict[str, float] = {}

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._deficits

    def __bool__(self) -> bool:
        return bool(self._deficits)

    def copy(self) -> Rounds:
        """Return the same, to try something."""
        other = Rounds(self._quantum_tokens, self._weights)
        other._deficits = dict(self._deficits)
        return other

    def enter(self, tenant: str) -> None:
        """Let a tenant take turns, after all others; who is alone is at hand."""
        self._deficits[tenant] = 0.0 if self._deficits else self._share(tenant)

    def leave(self, tenant: str) -> None:
        """Take a tenant out, who keeps nothing. The next one is visited if it was at hand."""
        at_hand = next(iter(self._deficits)) == tenant
        del self._deficits[tenant]
        if at_hand and self._deficits:
            self._deficits[next(iter(self._deficits))] += self._share(next(iter(self._deficits)))

    def turn(self, costs: Mapping[str, int]) -> Turn | None:
        """Return whose turn it is, if each one's next request costs so many tokens; None if nobody's."""
        last = len(self._deficits)
        turns: list[tuple[int, int, str]] = []
        for place, (tenant, deficit) in enumerate(self._deficits.items()):
            if tenant not in costs:
                continue
            lacking = ceil((costs[tenant] - deficit) / self._share(tenant))
            if not place and lacking <= 0:
                return Turn(tenant, 0, 0)
            turns.append((max(1, lacking), place or last, tenant))
        if not turns:
            return None
        visits, place, tenant = min(turns)
        return Turn(tenant, visits, place)

    def take(self, turn: Turn) -> None:
        """Go on to whose turn it is: who is visited on the way gets a share each time."""
        if not turn.visits:
            return
        names, last = list(self._deficits), len(self._deficits)
        for place, tenant in enumerate(names):
            visits = turn.visits - ((place or last) > turn.place)
            self._deficits[tenant] += visits * self._share(tenant)
        at = turn.place % last
        self._deficits = {name: self._deficits[name] for name in names[at:] + names[:at]}

    def charge(self, tenant: str, tokens: float) -> None:
        """Note that a request of a tenant was served."""
        self._deficits[tenant] -= tokens

    def _share(self, tenant: str) -> float:
        return self._quantum_tokens * self._weights.get(tenant, 1.0)
