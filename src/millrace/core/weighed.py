"""What a decision weighed, as a log holds it."""

from __future__ import annotations

from msgspec import Struct


class Weighed(Struct, frozen=True, omit_defaults=True):
    """What a policy made of one replica. Those with `place` 1 win; if they are several, one is drawn.

    `total` is what is compared, and `terms` what it is made of; None if the replica is out of the question.
    The policy foresees a first token after `ttft_s`; None if it does not predict that.
    """

    replica: str
    place: int
    total: float | None = None
    terms: dict[str, float] = {}
    ttft_s: float | None = None


class Explanation(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The words of a decision, what the totals are, and every replica that was weighed, the best first.

    A policy that cannot tell what it weighed has words at most.
    """

    why: str = ""
    by: str = ""
    weighed: tuple[Weighed, ...] = ()

    def ttft_s(self, replica: str) -> float | None:
        """Return when the policy foresees a first token from a replica, None if it does not."""
        return next((one.ttft_s for one in self.weighed if one.replica == replica), None)
