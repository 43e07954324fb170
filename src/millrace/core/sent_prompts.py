"""What a policy with a prefix tree of its own learns from events: who was sent what, and who lost it all."""

from __future__ import annotations

from millrace.core.event import Cancelled, Event, Failed, Finished, Moved, Reported
from millrace.core.fleet import Sent
from millrace.core.prefix_tree import PrefixTree


class SentPrompts:
    """Remembers where the requests under way were sent, which events about them do not say."""

    __slots__ = ("_under_way",)

    def __init__(self) -> None:
        self._under_way: dict[str, Sent] = {}

    def news(self, fact: Event | Sent) -> Sent | str | None:
        """Return the prompt that a replica holds since then, or the replica that holds nothing since then.

        A request that moves is held where it went, and what was computed where it was stays there.
        """
        if isinstance(fact, Sent):
            self._under_way[fact.request.id] = fact
            return fact
        if isinstance(fact, Reported):
            return fact.replica if fact.phase in ("starting", "gone") else None
        if isinstance(fact, Moved):
            return self._arrival(fact)
        if isinstance(fact, Finished | Failed | Cancelled):
            sent = self._under_way.pop(fact.request_id, None)
            if sent and isinstance(fact, Failed) and fact.replica_down:
                return fact.replica or sent.replica
        return None

    def _arrival(self, moved: Moved) -> Sent | None:
        sent = self._under_way.get(moved.request_id)
        if sent is None or sent.replica == moved.replica:
            return None
        arrived = Sent(moved.now_s, sent.request, moved.replica, moved=True)
        self._under_way[moved.request_id] = arrived
        return arrived


def learn(tree: PrefixTree, news: Sent | str | None) -> None:
    """Bring a tree up to date with such news."""
    if isinstance(news, Sent):
        tree.insert(news.request, news.replica, news.now_s)
    elif news is not None:
        tree.forget(news)
