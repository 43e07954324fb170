"""Requests, fleets and histories put together from simple choices, so that whoever chooses decides the kind.

`hashed` chooses by hash, which needs nothing installed and is the same everywhere; hypothesis chooses in
`millrace.testing.strategies`. The simplest option always comes first, so that failures shrink towards it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.draw import draw_below
from millrace.core.event import Arrived, Cancelled, Event, Failed, Finished, Reported, Started, Ticked
from millrace.core.fleet import FleetView, ReplicaView
from millrace.core.replica import Limits, Phase, ReplicaSpec, Report, Role
from millrace.core.request import Request
from millrace.testing import fakes

Choose = Callable[[Sequence[Any]], Any]  # takes options, returns one of them

PHASES: tuple[Phase, ...] = ("ready", "ready", "ready", "ready", "starting", "draining", "gone")
ROLES: tuple[Role, ...] = ("both", "both", "both", "both", "both", "decode", "prefill")
MODELS = ("m", "m", "m", "n")
SERVED = (("m",), ("m", "n"), ("m",), ("m", "n"), ("m", "n"), ("n",), ())
BLOCKS = ((), (1,), (1, 2, 3), (4, 5), (1, 2, 6), tuple(range(10, 40)))
TIMES_S = (0.0, 0.125, 1.0, 7.5)  # sums of eighths are exact, so shifted times keep their distances


class Case(Struct, frozen=True, eq=False):
    """One decision to take."""

    request: Request
    fleet: FleetView


class Queue(Struct, frozen=True, eq=False):
    """Held requests, in the order of their arrival, and the fleet they wait for."""

    held: tuple[Request, ...]
    fleet: FleetView


def hashed(*names: object) -> Choose:
    """Return a chooser whose choices belong to these names."""
    turns = count()
    return lambda options: options[draw_below(len(options), *names, next(turns))]


def some_decisions(number: int) -> Iterator[Case]:
    """Yield this many decisions to take, about small fleets first."""
    for n in range(number):
        yield case_from(hashed("decision", n), largest=1 + n * 8 // number)


def some_queues(number: int) -> Iterator[Queue]:
    """Yield this many queues, short ones first."""
    for n in range(number):
        yield queue_from(hashed("queue", n), longest=1 + n * 8 // number)


def case_from(choose: Choose, *, largest: int = 5) -> Case:
    """Put together a decision about a fleet of up to `largest` replicas."""
    fleet = fleet_from(choose, largest=largest)
    return Case(request_from(choose, choose(("q", "q1", "q2", "another"))), fleet)


def queue_from(choose: Choose, *, longest: int = 8) -> Queue:
    """Put together a queue of up to `longest` requests."""
    held = tuple(request_from(choose, f"q{n}") for n in range(choose(range(longest + 1))))
    return Queue(held, fleet_from(choose))


def request_from(choose: Choose, id: str) -> Request:
    """Put together a request, with a prefix that others may share and perhaps a deadline."""
    blocks = choose(BLOCKS)
    return fakes.request(
        id,
        model=choose(MODELS),
        prompt_tokens=16 * len(blocks) + choose((1, 100, 5000)),
        blocks=blocks,
        expected_tokens=choose((None, 1, 400)),
        tenant=choose(("default", "other")),
        session=choose((None, "s")),
        priority=choose((0, 1, -1)),
        deadline_s=choose((None, 1000.0)),
    )


def spec_from(choose: Choose) -> ReplicaSpec:
    """Put together what was bought; speeds and limits are often unknown."""
    return ReplicaSpec(
        models=choose(SERVED),
        limits=choose((None, Limits(), Limits(step_tokens=16, sequences=2))),
        prefill_tokens_per_s=choose((None, 1000.0, 250.0)),
        decode_step_s=choose((None, 0.0625, 0.5)),
        price_per_h=choose((None, 2.0)),
    )


def replica_from(choose: Choose, id: str) -> ReplicaView:
    """Put together a replica in the middle of its work; what it reported of itself may be missing."""
    sent = tuple(fakes.request(str(n), blocks=choose(BLOCKS)) for n in range(choose((0, 1, 3))))
    waiting, running = choose((0, 1, 9)), choose((0, 1, 30))
    view = fakes.replica(
        id,
        sent=sent,
        phase=choose(PHASES),
        waiting=waiting,
        running=running,
        queued_tokens=waiting * choose((0, 10, 2000)),
        context_tokens=running * choose((10, 2000)),
        report=choose((None, Report(now_s=0.0), Report(now_s=1.5, running=3, waiting=0, kv_free_tokens=64))),
    )
    view.spec = replace(spec_from(choose), role=choose(ROLES))
    return view


def fleet_from(choose: Choose, *, largest: int = 5) -> FleetView:
    """Put together a fleet of up to `largest` replicas, some of which may have failed the request before."""
    replicas = [replica_from(choose, f"r{n}") for n in range(choose(range(largest + 1)))]
    avoid = frozenset(r.id for r in replicas if choose((False, False, False, False, True)))
    return fakes.fleet(*replicas, now_s=16.0 + choose(TIMES_S), routed=choose((0, 1, 5)), avoid=avoid)


def history_from(choose: Choose, *, events: int) -> list[Event]:
    """Put together what may happen: times go forward, ids are new, anything may come late or twice."""
    history: list[Event] = [
        Reported(0.0, f"r{n}", choose(PHASES), spec_from(choose)) for n in range(1 + choose((0, 1, 2)))
    ]
    joined, arrived, now_s = len(history), 0, 0.0
    for _ in range(events):
        now_s += choose(TIMES_S)
        if choose((True, False, False)):
            history.append(Arrived(now_s, request_from(choose, f"q{arrived}")))
            arrived += 1
        elif choose((False, False, False, True)):
            history.append(Reported(now_s, f"r{choose(range(joined))}", choose(PHASES)))
        elif arrived:
            history.append(_news_from(choose, now_s, f"q{choose(range(arrived))}"))
    return history


def _news_from(choose: Choose, now_s: float, request_id: str) -> Event:
    kind = choose((Started, Finished, Failed, Cancelled, Ticked))
    if kind is Ticked:
        return Ticked(now_s)
    if kind is Failed:
        return Failed(
            now_s, request_id, "broken", retryable=choose((True, False)), replica_down=choose((False, True))
        )
    made: Event = kind(now_s, request_id)
    return made
