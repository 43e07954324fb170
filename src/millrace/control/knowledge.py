"""Which prompt blocks a replica is believed to hold: three ways to know, one of them chosen by a setting."""

from __future__ import annotations

from typing import Protocol, TypeGuard

from msgspec import UNSET

from millrace.control.aging import AgingPrefixes
from millrace.control.cached import SENT_TTL_S, CachedPrefixes
from millrace.control.clock import Clock
from millrace.control.flight import Flight
from millrace.control.horizon import NO_TRAIL, Trail
from millrace.control.prefixes import SentPrefixes
from millrace.control.settings import ControlSettings
from millrace.core.event import CacheChanged, Finished
from millrace.core.fleet import PrefixIndex
from millrace.core.replica import ReplicaSpec
from millrace.core.request import Request


class Knowledge(PrefixIndex, Protocol):
    """One replica's prefix index, as the kernel keeps it. Policies see what matches only."""

    @property
    def held_bytes(self) -> int:
        """Memory the index takes now."""

    def remember(self, request: Request) -> int:
        """Note that the prompt was sent, and return how many of its leading tokens are believed there."""

    def forget(self) -> None:
        """Drop everything: the replica restarted with an empty cache."""


class NoKnowledge:
    """Nothing is known, so nothing is ever there: what policies are that look at load alone."""

    __slots__ = ()
    held_bytes = 0

    def matched_tokens(self, request: Request) -> int:
        """Return 0."""
        return 0

    def matched_by_medium(self, request: Request) -> tuple[int, int, int]:
        """Return nothing for each medium."""
        return 0, 0, 0

    def remember(self, request: Request) -> int:
        """Return 0."""
        return 0

    def forget(self) -> None:
        """There is nothing to drop."""


class Prefixes:
    """The prefix index of every replica, by the replica's id."""

    def __init__(self, settings: ControlSettings) -> None:
        self.clock = Clock()
        self._settings = settings
        self._of: dict[str, Knowledge] = {}

    def __getitem__(self, replica: str) -> Knowledge:
        """Return what is known of a replica that joined."""
        return self._of[replica]

    def join(self, replica: str) -> Knowledge:
        """Return an empty index for a new replica, of the kind that the settings want."""
        settings, clock = self._settings, self.clock
        budget_bytes, ttl_s = settings.prefix_index_bytes, settings.prefix_ttl_s
        made: Knowledge
        if settings.prefix_knowledge == "none":
            made = NoKnowledge()
        elif settings.prefix_knowledge == "events":
            made = CachedPrefixes(budget_bytes, clock=clock, ttl_s=SENT_TTL_S if ttl_s is UNSET else ttl_s)
        elif ttl_s is UNSET:
            made = SentPrefixes(budget_bytes)
        else:
            made = AgingPrefixes(budget_bytes, clock=clock, ttl_s=ttl_s)
        self._of[replica] = made
        return made

    def expect(self, replica: str, spec: ReplicaSpec) -> None:
        """Note how much a replica's cache has room for, if that is known."""
        known, limits = self._of[replica], spec.limits
        if self._learns(known) and limits is not None:
            cached = limits.kv_blocks * limits.block_tokens * spec.expert_parallel
            known.assume(cached if limits.prefix_caching else 0)

    def send(self, replica: str, request: Request, pending_tokens: int) -> tuple[int, Trail]:
        """Note a prompt that is sent behind so many tokens in a replica's queue.

        Return how many of its leading tokens are believed there, and what to learn from its answer by.
        """
        known = self._of[replica]
        if self._learns(known):
            return known.send(request, pending_tokens=pending_tokens)
        return known.remember(request), NO_TRAIL

    def learn(self, flight: Flight, event: Finished) -> None:
        """Learn from an answer how far its replica's cache reaches back."""
        assert flight.replica is not None
        known = self._of[flight.replica]
        if self._learns(known):
            # An answer that went on elsewhere has begun in a cache of which nobody told.
            trail = NO_TRAIL if flight.resumed_tokens else flight.trail
            known.learn(flight.request, trail, event, new_tokens=flight.queued_tokens)

    def _learns(self, known: Knowledge) -> TypeGuard[SentPrefixes]:
        """Whether specs and answers correct what is believed of a replica."""
        return self._settings.prefix_knowledge == "answers" and isinstance(known, SentPrefixes)

    def follow(self, event: CacheChanged) -> None:
        """Note what an engine says of its prefix cache, if that is what is believed."""
        known = self._of.get(event.replica)
        if isinstance(known, CachedPrefixes):
            known.note(event.changes)

    def held_bytes(self) -> dict[str, int]:
        """Memory each replica's index takes now."""
        return {replica: known.held_bytes for replica, known in self._of.items()}
