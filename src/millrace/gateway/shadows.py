"""Routing policies that are asked too, while another one decides: counted, and never in its way.

Source: shadow traffic, as proxies mirror it (Envoy's `request_mirror_policies`), for decisions.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from millrace.control.hindsight import agreement
from millrace.core.event import Event
from millrace.core.fleet import Decision, FleetView, Route, Sent
from millrace.core.request import Request


class Shadows:
    """A controller's witness. `counted` are requests that were sent, by shadow and what it made of that.

    It would have sent them to the `same` replica, to an `other`, or to `none`; or it failed: an `error` of a
    shadow is counted each time, told once, and costs no request anything.
    """

    def __init__(self, policies: Mapping[str, Any]) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self._policies = dict(policies)
        self._learners = {
            name: learn for name, one in policies.items() if (learn := getattr(one, "note", None))
        }

    def note(self, fact: Event | Sent) -> None:
        """Let those learn that do."""
        for name, learn in self._learners.items():
            self._careful(name, partial(learn, fact))

    def decided(self, request: Request, fleet: FleetView, decision: Decision) -> None:
        """Ask each of them about a request that is sent."""
        if isinstance(decision, Route):
            for name, policy in self._policies.items():
                self._careful(name, partial(self._ask, name, policy, request, fleet, decision))

    def _ask(self, name: str, policy: Any, request: Request, fleet: FleetView, sent: Route) -> None:
        self.counted[name, agreement(sent, policy.route(request, fleet))] += 1

    def _careful(self, name: str, what: Callable[[], object]) -> None:
        try:
            what()
        except Exception as error:  # a shadow is its user's code: its bug must cost no request anything
            self.counted[name, "error"] += 1
            if self.counted[name, "error"] == 1:
                told = {"message": f"the shadow {name} failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)
