"""What happens to replicas while they serve: they are killed, start again, and drain, as a script says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from millrace.core.replica import Phase
from millrace.core.suggest import unknown

Deed = Literal["kill", "start", "drain"]
DEEDS: tuple[Deed, ...] = get_args(Deed)
DOWN: tuple[Phase, ...] = ("starting", "gone")
WHY = "the replica went down"
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

_TIME = r"at\s+(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]*)"
_WHAT = r"(?P<deed>\S+)\s+(?P<replica>\S+)"
_LINES = [re.compile(line, re.ASCII) for line in (rf"{_TIME}\s+{_WHAT}", rf"{_WHAT}\s+{_TIME}")]


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """At `at_s` a replica is killed, started, or told to finish what it has and take nothing more."""

    at_s: float
    deed: Deed
    replica: str


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read `kill r3 at 120s; start r3 at 180s`, separated by `;` or line ends, in the order of their times.

    The time may also come first (`at 120s kill r3`), in ms, s, m (or min) or h; what follows a `#` is a
    comment. A line that begins with a brace is JSON: `{"at_s": 120, "deed": "kill", "replica": "r3"}`.
    Raises ValueError that names the line.
    """
    faults = [
        _fault(part, number) if part[0] != "{" else _from_json(part, number)
        for number, line in enumerate(text.splitlines(), 1)
        for part in _parts(line)
    ]
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def late_joiners(faults: Iterable[Fault]) -> frozenset[str]:
    """Return the replicas whose first fault is a start: they are not there before it."""
    first: dict[str, Deed] = {}
    for fault in faults:
        first.setdefault(fault.replica, fault.deed)
    return frozenset(replica for replica, deed in first.items() if deed == "start")


def _parts(line: str) -> list[str]:
    if line.lstrip().startswith("{"):
        return [line.strip()]
    return [part.strip() for part in line.partition("#")[0].split(";") if part.strip()]


def _from_json(text: str, line: int) -> Fault:
    try:
        fault = msgspec.json.decode(text, type=Fault)
    except msgspec.MsgspecError as error:
        raise ValueError(
            f'line {line}: {error}; write it like {{"at_s": 120, "deed": "kill", "replica": "r3"}}'
        ) from None
    if fault.at_s < 0:
        raise ValueError(f"line {line}: at_s is {fault.at_s}; it must not be negative")
    return fault


def _fault(text: str, line: int) -> Fault:
    found = next(filter(None, (pattern.fullmatch(text) for pattern in _LINES)), None)
    if not found:
        raise ValueError(f"line {line}: cannot read the fault {text!r}; write it like 'kill r3 at 120s'")
    unit, deed = found["unit"], found["deed"]
    if unit not in UNITS_S:
        raise ValueError(f"line {line}: {unknown('unit of time', unit, UNITS_S)}")
    named = next((known for known in DEEDS if known == deed), None)
    if named is None:
        raise ValueError(f"line {line}: {unknown('fault', deed, DEEDS)}")
    return Fault(float(found["amount"]) * UNITS_S[unit], named, found["replica"])
