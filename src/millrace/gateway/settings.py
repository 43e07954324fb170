"""Settings of the gateway itself; policies and the controller carry their own."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from millrace.core.prompt import Measure
from millrace.core.replica import ReplicaSpec
from millrace.gateway.handing import Bootstrap
from millrace.gateway.kv_events.endpoint import Endpoint
from millrace.gateway.names import Names, Target

MEASURE = Measure()

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_URL = re.compile(r"[\x21-\x7e]+")


class Backend(Struct, frozen=True):
    """Where an engine listens; `id` names its replica in events, metrics and answers."""

    id: str
    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, text: str) -> Backend:
        """Read `[NAME=]http://HOST:PORT[/BASE]`; a base that ends in `/v1` will do. Raises ValueError."""
        name, url = _named(text)
        parts = urlsplit(url)
        try:
            port = parts.port or 80
        except ValueError:
            raise ValueError(f"backends: {text!r} has no usable port") from None
        if parts.scheme == "https":
            raise ValueError(
                f"backends: {text!r}: TLS is not spoken to engines; name an http:// address, such as that of "
                "a proxy next to the gateway that adds it"
            )
        if parts.scheme != "http" or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError(f"backends: {text!r} must look like http://host:port or http://host:port/base")
        base = parts.path.rstrip("/").removesuffix("/v1")
        backend = cls("", parts.hostname, port, base)
        return cls(name or backend.authority + base, parts.hostname, port, base)

    @property
    def authority(self) -> str:
        """The value of the host header."""
        return f"{self.host_in_url}:{self.port}"

    @property
    def host_in_url(self) -> str:
        """The host, with brackets around an IPv6 address."""
        return f"[{self.host}]" if ":" in self.host else self.host


def _named(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals or "/" in name:
        name, url = "", text
    if equals and name and not _NAME.fullmatch(name):
        raise ValueError(f"backends: {name!r} is no name; use letters, digits, dots, dashes and underscores")
    if not _URL.fullmatch(url):
        raise ValueError(f"backends: {text!r} must look like http://host:port or http://host:port/base")
    return name, url


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """What the gateway listens on, in front of which engines, and how patient it is.

    `backends` are `[NAME=]http://HOST:PORT[/BASE]`; without a name a replica goes by `HOST:PORT`. `specs`
    says of a replica (by its name or its backend) what was bought, for policies that predict; the models it
    serves are learned from the engine. `aliases` are other names that clients may use, each for a served
    model or for several with weights, "*" for whatever is not served; `fallbacks` are the models to turn to
    when one cannot answer. `answer_as_asked` puts the client's name for a model into its answer.

    With `failover` a stream whose engine breaks goes on at another one, where engines can do that; once the
    token ids that this takes fill `failover_bytes`, new streams do without.

    `port` 0 takes any free one; `admin_port` too, and without it there is no admin port. Clients get
    `client_timeout_s` to send a head, or the next piece of a body, or to read what waits for them; engines
    get `first_byte_timeout_s` to begin an answer and `stall_timeout_s` between two pieces of it, or
    `unwell_timeout_s` if they fail at their health page too and others do not. An answer
    that moves from one engine to another stays if that takes longer than `move_timeout_s`.

    `kv_events` says where engines, by name, publish what enters and leaves their prefix caches. Prompts are
    hashed in blocks of bytes, or of `block_tokens` tokens, which an engine counts within `tokenize_within_s`.
    `bootstraps` says where SGLang's engines meet those, by name, that compute prompts; else these are asked.
    """

    backends: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    specs: dict[str, ReplicaSpec] = {}
    aliases: dict[str, Target] = {}
    fallbacks: dict[str, tuple[str, ...]] = {}
    answer_as_asked: bool = True
    failover: bool = True
    failover_bytes: int = 256 << 20
    max_body_bytes: int = 32 << 20
    drain_s: float = 30.0
    scrape_s: float = 1.0
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 600.0
    stall_timeout_s: float = 300.0
    unwell_timeout_s: float = 5.0
    move_timeout_s: float = 10.0
    client_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0
    measure: Measure = MEASURE
    event_log: Path | None = None
    bootstraps: dict[str, Bootstrap] = {}
    kv_events: dict[str, Endpoint] = {}
    block_tokens: int | None = None
    tokenize_within_s: float = 0.1

    def __post_init__(self) -> None:
        parsed = self.parsed
        if not parsed:
            raise ValueError("backends: name at least one engine, such as http://127.0.0.1:8001")
        if len({backend.id for backend in parsed}) != len(parsed):
            raise ValueError(f"backends: each engine may be named once, not {', '.join(self.backends)}")
        if unknown := set(self.specs) - set(self.backends) - {backend.id for backend in parsed}:
            raise ValueError(
                f"specs: {sorted(unknown)} name no replica; use the names or URLs of the backends"
            )
        names = {backend.id for backend in parsed}
        if unknown := self.bootstraps.keys() - names:
            raise ValueError(f"bootstraps: {sorted(unknown)} name no replica; use the names of the backends")
        self._check_kv_events(names)
        Names(self.aliases, self.fallbacks)
        for name in ("port", "admin_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 65535")
        if self.drain_s < 0:
            raise ValueError(f"drain_s is {self.drain_s}; it must not be negative")
        for name in ("max_body_bytes", "failover_bytes", "scrape_s", *_TIMEOUTS):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")

    @property
    def parsed(self) -> list[Backend]:
        """The backends, read."""
        return [Backend.parse(text) for text in self.backends]

    def _check_kv_events(self, names: set[str]) -> None:
        if unknown := self.kv_events.keys() - names:
            raise ValueError(f"kv_events: {sorted(unknown)} name no replica; use the names of the backends")
        if self.kv_events and self.block_tokens is None:
            raise ValueError("block_tokens is None; say how many tokens the engines' blocks have")
        if self.block_tokens is not None and self.block_tokens < 1:
            raise ValueError(f"block_tokens is {self.block_tokens}; it must be at least 1")


_TIMEOUTS = (
    "tokenize_within_s",
    "connect_timeout_s",
    "first_byte_timeout_s",
    "stall_timeout_s",
    "unwell_timeout_s",
    "move_timeout_s",
    "client_timeout_s",
    "idle_timeout_s",
)
