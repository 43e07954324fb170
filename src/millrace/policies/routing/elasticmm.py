"""Text and media have replicas of their own, as many as their work takes, and borrow from each other.

Requests with media first go to a replica that only encodes, if the answering one lacks their blocks: nobody's
steps wait for an encoder. The same media go to the same encoder, which remembers what it made of them, as
long as its queue is not longer than the shortest by more than their own tokens. Where an encoder would keep
them waiting for more than `overflow_s`, or there is none, they are encoded where they are answered.

The replicas that answer are divided between text and media by the work that came lately, by prompt and media
tokens, at least one for each. Within the group the first to have computed the prompt is taken: prompt tokens
queued and its own that the prefix cache lacks, at its prefill speed. A request borrows a replica of the other
group where it would be served `borrow_from` times as soon. Media are part of the prefix: their blocks are
found like those of a text.

The paper divides encoding, prefill and decoding; here replicas prefill and decode. How fast old work fades,
when to borrow and when to encode in place are inferred.

Source: ElasticMM (Liu et al., arXiv:2507.10069): modality groups, non-blocking encoding, one prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from millrace.core.draw import draw, draw_least
from millrace.core.event import Arrived, Event
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route, Sent
from millrace.core.request import Request


@dataclass(slots=True)
class Policy:
    """`fading` is what an arrival leaves of the work that came before it; speeds are tokens a second of
    replicas when none of them has a known one.
    """

    borrow_from: float = 2.0
    overflow_s: float = 1.0
    fading: float = 0.99
    assumed_tokens_per_s: float = 1000.0
    seed: int = 0
    _text: float = field(default=0.0, init=False, repr=False, compare=False)
    _media: float = field(default=0.0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.borrow_from < inf:
            raise ValueError(f"borrow_from is {self.borrow_from}; it must be at least 1")
        if not 0 <= self.overflow_s < inf:
            raise ValueError(f"overflow_s is {self.overflow_s}; it must be a number of seconds from 0")
        if not 0 < self.fading < 1:
            raise ValueError(f"fading is {self.fading}; it must be between 0 and 1")
        if not 0 < self.assumed_tokens_per_s < inf:
            raise ValueError(f"assumed_tokens_per_s is {self.assumed_tokens_per_s}; it must be positive")

    def note(self, fact: Event | Sent) -> None:
        """Follow how much work of each kind comes."""
        if isinstance(fact, Arrived):
            self._text *= self.fading
            self._media *= self.fading
            if fact.request.media:
                self._media += fact.request.prompt_tokens
            else:
                self._text += fact.request.prompt_tokens

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        chosen = self._soonest(request, able)
        encoders = fleet.encoding(request) if _lacks_media(request, chosen) else ()
        encoder = self._encoder(request, encoders) if encoders else None
        return Route(chosen.id, prefill_on=encoder)

    def _soonest(self, request: Request, able: Sequence[ReplicaView]) -> ReplicaView:
        """The best of its group, or of the other one if that is so much better."""
        seconds = self._prefill_s(request, able)
        ranks = [(s, replica.in_flight) for s, replica in zip(seconds, able, strict=True)]
        size = self._media_size(len(able))
        media, text = range(size), range(size, len(able))
        own, other = (media, text) if request.media else (text, media)
        if not own or not other:
            return able[draw_least(ranks, request.id, self.seed)]
        home = own[draw_least([ranks[n] for n in own], request.id, self.seed)]
        away = other[draw_least([ranks[n] for n in other], request.id, self.seed)]
        return able[away if seconds[home] > self.borrow_from * seconds[away] else home]

    def _media_size(self, replicas: int) -> int:
        """How many of them are for media: at least one for each kind that comes, and all if only one does."""
        work = self._text + self._media
        if not work:
            return 0
        share = round(replicas * self._media / work)
        return min(max(share, self._media > 0), replicas - (self._text > 0))

    def _encoder(self, request: Request, encoders: Sequence[ReplicaView]) -> str | None:
        """The one that is asked for these media always, or the one with the shortest queue; None if late."""
        queues = [replica.queued_tokens for replica in encoders]
        names = [draw(request.media[0].key, replica.id, self.seed) for replica in encoders]
        home, shortest = names.index(min(names)), draw_least(queues, request.id, self.seed)
        usual = queues[home] <= queues[shortest] + request.encode_tokens
        chosen = encoders[home if usual else shortest]
        speed = chosen.spec.prefill_tokens_per_s or self._slowest(encoders)
        return chosen.id if chosen.queued_tokens <= speed * self.overflow_s else None

    def _prefill_s(self, request: Request, replicas: Sequence[ReplicaView]) -> list[float]:
        slowest = self._slowest(replicas)
        return [
            (one.queued_tokens + max(1, request.prompt_tokens - _cached(request, one)))
            / (one.spec.prefill_tokens_per_s or slowest)
            for one in replicas
        ]

    def _slowest(self, replicas: Sequence[ReplicaView]) -> float:
        speeds = [speed for one in replicas if (speed := one.spec.prefill_tokens_per_s)]
        return min(speeds, default=self.assumed_tokens_per_s)


def _lacks_media(request: Request, replica: ReplicaView) -> bool:
    return bool(request.media) and _cached(request, replica) < request.encode_tokens


def _cached(request: Request, replica: ReplicaView) -> int:
    return replica.prefix.matched_tokens(request) if request.blocks else 0
