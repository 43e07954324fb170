"""What ties a simulated fleet to whoever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from millrace.core.event import Action, Event
from millrace.core.outcome import Outcome
from millrace.simulate.job import Job
from millrace.simulate.telling import Teller

Watcher = Callable[[Event, list[Action]], None]


class Ties(Struct, frozen=True, kw_only=True):
    """`finish` is told each outcome, and `watch` each event with the actions that answered it.

    `admit` makes of each request that comes the one that is served. `follow` says which further requests the
    end of one brings on, none of them due before it, and `tellers` what changes in the prefix caches of
    servers.
    """

    finish: Callable[[Outcome], object]
    watch: Watcher | None = None
    admit: Callable[[Job], Job] | None = None
    follow: Callable[[Outcome], Iterable[Job]] | None = None
    tellers: Mapping[str, Teller] = {}
