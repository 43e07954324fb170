"""Settings of the gateway itself; policies and the controller carry their own."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from millrace.core.prompt import Measure
from millrace.core.replica import ReplicaSpec

MEASURE = Measure()


class Backend(Struct, frozen=True):
    """Where an engine listens; `id` names its replica in events and metrics."""

    id: str
    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str) -> Backend:
        """Read `http://host:port[/base]`; a base that ends in `/v1` will do. Raises ValueError."""
        parts = urlsplit(url)
        try:
            port = parts.port or 80
        except ValueError:
            raise ValueError(f"backends: {url!r} has no usable port") from None
        if parts.scheme != "http" or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError(f"backends: {url!r} must look like http://host:port or http://host:port/base")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(f"backends: {url!r} holds characters no URL may hold")
        base = parts.path.rstrip("/").removesuffix("/v1")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{host}:{port}{base}", parts.hostname, port, base)

    @property
    def authority(self) -> str:
        """The value of the host header."""
        return self.id.removesuffix(self.base)


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """What the gateway listens on, in front of which engines, and how patient it is.

    `specs` says of a backend (by its URL) what was bought, for policies that predict; the models it serves
    are learned from the engine. `port` 0 takes any free one. Clients get `client_timeout_s` to send a head
    or the next piece of a body or to read what waits for them; engines get `first_byte_timeout_s` to begin an
    answer and `stall_timeout_s` between two pieces of it.
    """

    backends: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    specs: dict[str, ReplicaSpec] = {}
    max_body_bytes: int = 32 << 20
    drain_s: float = 30.0
    scrape_s: float = 1.0
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 600.0
    stall_timeout_s: float = 300.0
    client_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0
    measure: Measure = MEASURE
    event_log: Path | None = None

    def __post_init__(self) -> None:
        parsed = [Backend.parse(url) for url in self.backends]
        if not parsed:
            raise ValueError("backends: name at least one engine, such as http://127.0.0.1:8001")
        if len({backend.id for backend in parsed}) != len(parsed):
            raise ValueError(f"backends: each engine may be named once, not {', '.join(self.backends)}")
        if unknown := set(self.specs) - set(self.backends):
            raise ValueError(f"specs: {sorted(unknown)} are no backends; use the same URLs in both")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; it must be between 0 and 65535")
        if self.drain_s < 0:
            raise ValueError(f"drain_s is {self.drain_s}; it must not be negative")
        for name in ("max_body_bytes", "scrape_s", *_TIMEOUTS):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")


_TIMEOUTS = (
    "connect_timeout_s",
    "first_byte_timeout_s",
    "stall_timeout_s",
    "client_timeout_s",
    "idle_timeout_s",
)
