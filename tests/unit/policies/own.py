"""Policies as a user would bring them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from millrace.core.fleet import Decision, FleetView, Hold
from millrace.core.request import Request


@dataclass(frozen=True)
class Patient:
    """Holds everything."""

    why: str = "no hurry"
    weights: tuple[float, ...] = (1.0,)
    learned: dict[str, float] = field(init=False, default_factory=dict)

    def route(self, request: Request, fleet: FleetView) -> Decision:
        return Hold(self.why)


@dataclass(frozen=True)
class Demanding:
    """Has a setting without a default."""

    price: float

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return held


class Outer:
    """Keeps a policy inside."""

    @dataclass(frozen=True)
    class Policy:
        """Holds everything."""

        def route(self, request: Request, fleet: FleetView) -> Decision:
            return Hold("inside")


class Bare:
    """Is no dataclass."""


READY_MADE = Patient()
