"""What the gateway knows of its engines: where they are, how they are, and which models they serve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.replica import Phase, ReplicaSpec, Role
from millrace.gateway.handing import Bootstrap
from millrace.gateway.names import ANYTHING, Names
from millrace.gateway.resuming import dialect_of
from millrace.gateway.settings import Backend, GatewaySettings
from millrace.gateway.upstream import Engine

NOTHING_KNOWN = ReplicaSpec(models=())


@dataclass(slots=True, eq=False)
class Member:
    """One engine. `cards` are its entries of `/v1/models`, `transfer` is what they say of its KV port, if it
    has one; `failures` counts examinations failed in a row.

    `losses` counts how often it was given up: its cache was taken to be empty from then on. An engine of
    SGLang that computes prompts is met at its `bootstrap`; one that `only_answers` cannot do without.
    Who was told to drain is `retired`, whatever it says of itself.
    """

    engine: Engine
    spec: ReplicaSpec
    phase: Phase = "starting"
    cards: list[dict[str, Any]] = field(default_factory=list)
    failures: int = 0
    examined: int = 0
    scraped_s: float | None = None
    losses: int = 0
    transfer: dict[str, Any] | None = None
    bootstrap: Bootstrap | None = None
    only_answers: bool = False
    retired: bool = False

    def lose(self) -> None:
        """Note that it cannot be reached."""
        self.phase = "gone"
        self.losses += 1


class Part(Struct, frozen=True):
    """What an engine of SGLang is for, and the port where others meet it, as far as it says so."""

    role: Role = "both"
    port: int | None = None


class Fleet:
    """All engines, by the names of their replicas."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.members: dict[str, Member] = {}
        self._settings = settings
        self.catalogue: dict[str, dict[str, Any]] = {}
        self._bootstraps = settings.bootstraps
        self._targets = Names(settings.aliases, settings.fallbacks).targets
        for text in settings.backends:
            backend = Backend.parse(text)
            engine = Engine(backend, connect_timeout_s=settings.connect_timeout_s)
            bought = settings.specs.get(text) or settings.specs.get(backend.id, NOTHING_KNOWN)
            if bought.role == "encode":
                raise ValueError(
                    f"{backend.id} has role 'encode': a gateway has nothing encoded for other engines; "
                    "leave the role out, or put the engines' own proxy behind one name"
                )
            spec = replace(bought, models=())
            self.members[engine.id] = Member(engine, spec, bootstrap=settings.bootstraps.get(backend.id))

    @property
    def ready(self) -> int:
        """How many engines can be sent requests."""
        return sum(member.phase == "ready" for member in self.members.values())

    def learn(self, member: Member, cards: list[dict[str, Any]], part: Part | None = None) -> bool:
        """Note the models an engine serves, and its part if it is SGLang's; return whether that is news."""
        models = tuple(card["id"] for card in cards)
        said = _role(cards) if part is None else part.role
        role = said if member.spec.role == "both" else member.spec.role
        if part is not None:
            member.only_answers = role == "decode"
            host = member.engine.backend.host_in_url
            found = Bootstrap(host, part.port) if role == "prefill" else None
            member.bootstrap = self._bootstraps.get(member.engine.id, found)
        member.engine.dialect = dialect_of(cards)
        member.transfer = transfer = _transfer(cards)
        before, member.cards = member.spec, cards
        cache = {} if transfer is None else _kv_cache(transfer)
        member.spec = replace(before, models=models, role=role, **cache)
        self.catalogue = catalogue([card for each in self.members.values() for card in each.cards])
        for alias, shares in self._targets.items():
            served = [self.catalogue[model] for model in shares if model in self.catalogue]
            if served and alias != ANYTHING:
                self.catalogue[alias] = alias_card(alias, served)
        return member.spec != before

    def patience_s(self, engine: Engine, *, begun: bool) -> float:
        """Return how long an engine may be silent that has begun an answer, or not.

        That is not long if it is unwell, so that nobody knows when it would go on, and others are there.
        """
        usual_s = self._settings.stall_timeout_s if begun else self._settings.first_byte_timeout_s
        unwell = self.members[engine.id].phase == "gone" and self.ready > 0
        return min(usual_s, self._settings.unwell_timeout_s) if unwell else usual_s


def way_between(source: Member, target: Member) -> dict[str, Any] | None:
    """Return where the target finds the source's KV caches; None if it could not use them."""
    here, there = source.transfer, target.transfer
    if here is None or there is None or here.get("kv_format") != there.get("kv_format"):
        return None
    return here


def _transfer(cards: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Take out what is the clients' business least of all."""
    told = [card.pop("kv_transfer", None) for card in cards]
    return told[0] if told and isinstance(told[0], dict) else None


def _kv_cache(transfer: dict[str, Any]) -> dict[str, Any]:
    """Return what a spec says of the KV caches that an engine gives to others."""
    fits, each_bytes = transfer.get("kv_format"), transfer.get("kv_bytes_per_token")
    usable = isinstance(each_bytes, int | float) and each_bytes > 0
    return {
        "kv_format": fits if isinstance(fits, str) else None,
        "kv_bytes_per_token": each_bytes if usable else None,
    }


def _role(cards: Sequence[dict[str, Any]]) -> Role:
    """Return what an engine says that it is for."""
    told = {card.get("role") for card in cards}
    return "prefill" if told == {"prefill"} else "decode" if told == {"decode"} else "both"


def catalogue(cards: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return engines' entries of `/v1/models` by name.

    An adapter that does not say how long its prompts may be takes what its `parent` takes.
    """
    found = {card["id"]: {"object": "model", "created": 0, "owned_by": "millrace"} | card for card in cards}
    for card in found.values():
        named = card.get("parent")
        parent = found.get(named, {}) if isinstance(named, str) else {}
        if card.get("max_model_len") is None and "max_model_len" in parent:
            card["max_model_len"] = parent["max_model_len"]
    return found


def alias_card(alias: str, served: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the entry of a name for these models: that of the first, no longer than any of them takes."""
    lengths = [card["max_model_len"] for card in served if isinstance(card.get("max_model_len"), int)]
    limit = {"max_model_len": min(lengths)} if lengths else {}
    return served[0] | {"id": alias, "root": served[0]["id"]} | limit
