"""Who takes what an engine answers, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from millrace.gateway.framing import Head

if TYPE_CHECKING:
    from millrace.gateway.upstream import EngineConnection


class Answer(Protocol):
    """Takes the body of one answer."""

    def framed(self, data: bytes, start: int) -> None:
        """Take exactly one HTTP chunk; its payload is `data[start:-2]`."""

    def payload(self, payload: bytes) -> None:
        """Take a piece of the body without its framing."""

    def end(self, *, by_close: bool) -> None:
        """The body is complete, or lasted until the engine closed the connection."""


class Receiver(Protocol):
    """Waits for one answer."""

    connection: EngineConnection | None

    def on_head(self, head: Head) -> Answer:
        """Return what takes the body that follows."""

    def on_whole(self, head: Head, body: bytes) -> None:
        """Take a complete answer that came in one read."""

    def on_broken(self, reason: str, why: str, *, down: bool = False) -> None:
        """No more of the answer will come. `reason` is a fixed word; `down`: the engine cannot be reached."""
