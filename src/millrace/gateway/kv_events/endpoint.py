"""Where an engine publishes the events of its KV cache."""

from __future__ import annotations

import re

from msgspec import Struct

_ADDRESS = re.compile(r"(tcp://[^\s,/]+:\d+|ipc://[^\s,]+)")


class Endpoint(Struct, frozen=True):
    """The addresses of an engine's PUB socket, and of the ROUTER socket that replays what was missed."""

    events: str
    replay: str | None = None
    topic: str = ""

    @classmethod
    def parse(cls, text: str) -> tuple[str, Endpoint]:
        """Read `NAME=tcp://HOST:PORT[,replay=tcp://HOST:PORT][,topic=TOPIC]`. Raises ValueError."""
        name, _, rest = text.partition("=")
        address, *more = rest.split(",")
        fields = dict(part.partition("=")[::2] for part in more)
        addresses = (address, fields.get("replay", address))
        if not name or fields.keys() - {"replay", "topic"} or not all(map(_ADDRESS.fullmatch, addresses)):
            raise ValueError(
                f"kv_events: cannot read {text!r}; write NAME=tcp://HOST:PORT, or "
                "NAME=tcp://HOST:PORT,replay=tcp://HOST:PORT"
            )
        return name, cls(address, fields.get("replay"), fields.get("topic", ""))
