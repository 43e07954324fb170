"""What overlapping buys: sending while producing, and computing, reading and sending at the same time.

T3 (Pati et al., arXiv:2401.16677) sends each piece of a product as soon as it is there. NanoFlow (Zhu et al.,
arXiv:2408.12757) lets operations of different parts of a batch use different resources of a device at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from msgspec import Struct

Resource = Literal["compute", "memory", "network"]
RESOURCES: tuple[Resource, ...] = ("compute", "memory", "network")


class Operation(Struct, frozen=True, kw_only=True):
    """Something a device does, which keeps one of its resources busy for `seconds` when it runs alone.

    It begins when the operations at the places `after`, earlier in the same list, have ended.
    """

    name: str
    resource: Resource
    seconds: float
    after: tuple[int, ...] = ()


class Run(Struct, frozen=True):
    """When an operation ran."""

    start_s: float
    end_s: float


def fused_s(produce_s: float, send_s: float, pieces: int) -> float:
    """Seconds until a product is sent, if each of its equal pieces is sent when it is there.

    One piece is produced before anything can be sent, and one is sent after all are produced.
    """
    return (produce_s + send_s + (pieces - 1) * max(produce_s, send_s)) / pieces


def fused_speedup(produce_s: float, send_s: float, pieces: int, *, rest_s: float = 0.0) -> float:
    """How many times as fast that is as doing one after the other; `rest_s` comes after in both cases."""
    return (produce_s + send_s + rest_s) / (fused_s(produce_s, send_s, pieces) + rest_s)


def relayed_s(pieces: Iterable[tuple[float, float]]) -> float:
    """The same for pieces of any lengths, (produce_s, send_s) each, by following them one by one."""
    produced_s = sent_s = 0.0
    for produce_s, send_s in pieces:
        produced_s += produce_s
        sent_s = max(sent_s, produced_s) + send_s
    return sent_s


def sequential_s(operations: Iterable[Operation]) -> float:
    """Seconds of all operations one after the other."""
    return sum(operation.seconds for operation in operations)


def bound_s(operations: Iterable[Operation]) -> float:
    """Seconds below which no order of the operations can get: those of the busiest resource."""
    busy_s = dict.fromkeys(RESOURCES, 0.0)
    for operation in operations:
        busy_s[operation.resource] += operation.seconds
    return max(busy_s.values())


def schedule(operations: Sequence[Operation], *, together: float = 1.0) -> list[Run]:
    """Run operations as early as can be, each resource taking the first in the list that may begin.

    While operations run on several resources at once, each proceeds at `together` of its speed alone.
    """
    starts_s: dict[int, float] = {}
    ends_s: dict[int, float] = {}
    left_s: dict[int, float] = {}
    now_s = 0.0
    while len(ends_s) < len(operations):
        for index in _beginning(operations, starts_s, ends_s, left_s):
            starts_s[index] = now_s
            left_s[index] = operations[index].seconds
        speed = together if len(left_s) > 1 else 1.0
        passed_s = min(left_s.values())
        now_s += passed_s / speed
        for index in list(left_s):
            left_s[index] -= passed_s
            if left_s[index] <= 1e-12 * operations[index].seconds:
                del left_s[index]
                ends_s[index] = now_s
    return [Run(starts_s[i], ends_s[i]) for i in range(len(operations))]


def violations(operations: Sequence[Operation], runs: Sequence[Run]) -> list[str]:
    """Say in words what is wrong with a schedule: an operation too early, too short, or not alone."""
    found = []
    slack_s = 1e-9 * max((run.end_s for run in runs), default=0.0)
    for operation, run in zip(operations, runs, strict=True):
        if run.end_s - run.start_s < operation.seconds - slack_s:
            found.append(f"{operation.name} takes less than its {operation.seconds:g} s")
        found += [
            f"{operation.name} begins before {operations[before].name} has ended"
            for before in operation.after
            if run.start_s < runs[before].end_s - slack_s
        ]
    for resource in RESOURCES:
        found += _crowded(resource, operations, runs, slack_s)
    return found


def _beginning(
    operations: Sequence[Operation],
    starts_s: dict[int, float],
    ends_s: dict[int, float],
    running: Iterable[int],
) -> list[int]:
    """What begins now: for every idle resource, the first operation that waits for nothing any more."""
    taken = {operations[index].resource for index in running}
    found = []
    for index, operation in enumerate(operations):
        if index in starts_s or operation.resource in taken:
            continue
        if all(before in ends_s for before in operation.after):
            taken.add(operation.resource)
            found.append(index)
    return found


def _crowded(
    resource: Resource, operations: Sequence[Operation], runs: Sequence[Run], slack_s: float
) -> list[str]:
    own = sorted(
        (run.start_s, run.end_s, operation.name)
        for operation, run in zip(operations, runs, strict=True)
        if operation.resource == resource
    )
    return [f"{b[2]} shares its {resource} with {a[2]}" for a, b in pairwise(own) if b[0] < a[1] - slack_s]
