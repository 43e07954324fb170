"""First come, first served.

Source: the default of every engine and gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from millrace.core.fleet import FleetView
from millrace.core.request import Request


@dataclass(frozen=True, slots=True)
class Policy:
    """Keeps the order of arrival, in which the controller holds requests, retried ones too."""

    def order(self, held: Iterable[Request], fleet: FleetView) -> Iterable[Request]:
        return held
