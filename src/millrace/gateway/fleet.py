"""What the gateway knows of its engines: where they are, how they are, and which models they serve."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from millrace.core.replica import Phase, ReplicaSpec
from millrace.gateway.settings import Backend, GatewaySettings
from millrace.gateway.upstream import Engine

NOTHING_KNOWN = ReplicaSpec(models=())


@dataclass(slots=True, eq=False)
class Member:
    """One engine. `cards` are its entries of `/v1/models`; `failures` counts examinations failed in a row."""

    engine: Engine
    spec: ReplicaSpec
    phase: Phase = "starting"
    cards: list[dict[str, Any]] = field(default_factory=list)
    failures: int = 0
    examined: int = 0
    scraped_s: float | None = None


class Fleet:
    """All engines, by the names of their replicas."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.members: dict[str, Member] = {}
        self.catalogue: dict[str, dict[str, Any]] = {}
        self._aliases = settings.aliases
        for text in settings.backends:
            backend = Backend.parse(text)
            engine = Engine(backend, connect_timeout_s=settings.connect_timeout_s)
            bought = settings.specs.get(text) or settings.specs.get(backend.id, NOTHING_KNOWN)
            spec = replace(bought, models=())
            self.members[engine.id] = Member(engine, spec)

    @property
    def ready(self) -> int:
        """How many engines can be sent requests."""
        return sum(member.phase == "ready" for member in self.members.values())

    def learn(self, member: Member, cards: list[dict[str, Any]]) -> bool:
        """Note the models an engine serves; return whether that is news."""
        models = tuple(card["id"] for card in cards)
        news = models != member.spec.models
        member.cards, member.spec = cards, replace(member.spec, models=models)
        self.catalogue = {
            card["id"]: {"object": "model", "created": 0, "owned_by": "millrace"} | card
            for each in self.members.values()
            for card in each.cards
        }
        for alias, model in self._aliases.items():
            if model in self.catalogue:
                self.catalogue[alias] = self.catalogue[model] | {"id": alias, "root": model}
        return news
