"""What happens to replicas while they serve: they are killed, start again, and drain, as a script says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

from msgspec import Struct

from millrace.core.suggest import unknown

Deed = Literal["kill", "start", "drain"]
DEEDS: tuple[Deed, ...] = get_args(Deed)
UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}

_LINE = re.compile(r"at\s+(\d+(?:\.\d+)?)\s*([a-z]*)\s+(\S+)\s+(\S+)", re.ASCII)


class Fault(Struct, frozen=True):
    """At `at_s` a replica is killed, started, or told to finish what it has and take nothing more."""

    at_s: float
    deed: Deed
    replica: str


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read `at 120s kill r3; at 180s start r3`, separated by `;` or line ends, in the order of their times.

    What follows a `#` is a comment; times are in ms, s, min or h. Raises ValueError that names the line.
    """
    faults = [
        _fault(part.strip(), number)
        for number, line in enumerate(text.splitlines(), 1)
        for part in line.partition("#")[0].split(";")
        if part.strip()
    ]
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def late_joiners(faults: Iterable[Fault]) -> frozenset[str]:
    """Return the replicas whose first fault is a start: they are not there before it."""
    first: dict[str, Deed] = {}
    for fault in faults:
        first.setdefault(fault.replica, fault.deed)
    return frozenset(replica for replica, deed in first.items() if deed == "start")


def _fault(text: str, line: int) -> Fault:
    found = _LINE.fullmatch(text)
    if not found:
        raise ValueError(f"line {line}: cannot read the fault {text!r}; write it like 'at 120s kill r3'")
    amount, unit, deed, replica = found.groups()
    if unit not in UNITS_S:
        raise ValueError(f"line {line}: {unknown('unit of time', unit, UNITS_S)}")
    named = next((known for known in DEEDS if known == deed), None)
    if named is None:
        raise ValueError(f"line {line}: {unknown('fault', deed, DEEDS)}")
    return Fault(float(amount) * UNITS_S[unit], named, replica)
