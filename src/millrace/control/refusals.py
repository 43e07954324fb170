"""Why requests are turned away: in words, as a status, and as a code that programs read.

Source: the dropped reasons of llm-d's router, whose words these are where it has one for the case.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct

from millrace.core.event import Reason, Refuse


class Why(Struct, frozen=True):
    """One way to be turned away; `again` says that trying later may help."""

    words: str
    status: Literal[429, 503, 504]
    reason: Reason
    again: bool = True

    def refusal(self, request_id: str, retry_after_s: float, *, reasoned: bool) -> Refuse:
        """Return what to tell the client, with the code if it is `reasoned`, as older logs are not."""
        later_s = retry_after_s if self.again else None
        return Refuse(request_id, self.words, self.status, later_s, self.reason if reasoned else UNSET)


FULL = Why("the queue is full", 429, "rejected-capacity")
BAND_FULL = Why("the queue is full for requests of this priority", 429, "rejected-capacity-priority")
TENANT_FULL = Why("as many requests of this tenant wait as may", 429, "rejected-capacity-tenant")
SATURATED = Why("the fleet is saturated, and the request may be shed", 429, "rejected-saturated")
EXPIRED = Why("no replica became free in time", 503, "rejected-ttl-expired")
ABANDONED = Why("no replica became free in time", 503, "rejected-no-endpoints")
OVERDUE = Why("the request's deadline passed while it waited", 504, "rejected-deadline", again=False)
LATE = Why("the first token would come after the request's deadline", 504, "rejected-late", again=False)
SLOW = Why("the first token would come later than was promised", 503, "rejected-late")
