"""What time it is for what a controller remembers: that of the event at hand."""

from __future__ import annotations

from msgspec import Struct


class Clock(Struct, eq=False):
    """Set by the controller before anything else is done about an event; read by whatever ages."""

    now_s: float = 0.0
