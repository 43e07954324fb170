"""What request headers say: the id a request goes by, promises, names."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from itertools import count
from time import time_ns
from typing import Any

from millrace.core.prompt import NAME_LIMIT, NO_SLO, InvalidRequestError
from millrace.core.request import Slo

SESSION_FIELDS = (b"x-session-id", b"x-session-token", b"x-session-affinity", b"x-claude-code-session-id")
"""Ours and llm-d's, OpenCode's, and Claude Code's; the first that is there counts."""

_SESSION_FIELDS = frozenset(SESSION_FIELDS)
_SLO_FIELDS = frozenset((b"x-llm-d-slo-ttft-ms", b"x-llm-d-slo-tpot-ms", b"x-slo-ttft-ms", b"x-slo-tpot-ms"))
_INTEGER = re.compile(rb"[+-]?\d{1,9}")
_SANE = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestIds:
    """Takes the client's id if it is sane, makes one if not; never the same one twice at a time."""

    def __init__(self) -> None:
        self._made_here = f"req_{time_ns() // 1_000_000:012x}{os.urandom(5).hex()}"
        self._count = count()

    def choose(self, noted: dict[bytes, bytes], taken: Container[str]) -> str:
        """Return the client's id, with a suffix if taken; without a sane one, an id that sorts by age."""
        wanted = noted.get(b"x-request-id")
        if wanted is None or not _SANE.fullmatch(wanted):
            return f"{self._made_here}{next(self._count):010x}"
        name = chosen = wanted.decode()
        while chosen in taken:
            chosen = f"{name}-{next(self._count):x}"
        return chosen


def text_of(noted: dict[bytes, bytes], field: bytes) -> str | None:
    """Return a header as text, cut to a sane length; None if it is absent or empty."""
    value = noted.get(field)
    return value[:NAME_LIMIT].decode("latin-1") if value else None


def session_of(noted: dict[bytes, bytes]) -> str | None:
    """Return the conversation that the headers name, under whichever of its names clients have for it."""
    if _SESSION_FIELDS.isdisjoint(noted):
        return None
    named = (text_of(noted, field) for field in SESSION_FIELDS)
    return next(filter(None, named), None)


def slo_of(noted: dict[bytes, bytes]) -> Slo:
    """Return what the client's headers ask for (llm-d's names, old and new). Raises InvalidRequestError."""
    if _SLO_FIELDS.isdisjoint(noted):
        return NO_SLO
    ttft_s, tpot_s = _seconds(noted, "slo-ttft-ms"), _seconds(noted, "slo-tpot-ms")
    return Slo(ttft_s=ttft_s, tpot_s=tpot_s)


def urgency_of(noted: dict[bytes, bytes], now_s: float) -> dict[str, Any]:
    """Return the fields of a request that its headers set: its priority, and the moment it is due.

    Raises InvalidRequestError.
    """
    found: dict[str, Any] = {}
    if (priority := noted.get(b"x-priority")) is not None:
        found["priority"] = _integer(priority, "x-priority")
    if (within := noted.get(b"x-deadline-ms")) is not None:
        found["deadline_s"] = now_s + _milliseconds(within, "x-deadline-ms") / 1000
    return found


def _seconds(noted: dict[bytes, bytes], name: str) -> float | None:
    for field in (f"x-llm-d-{name}", f"x-{name}"):
        value = noted.get(field.encode())
        if value is not None:
            return _milliseconds(value, field) / 1000
    return None


def _milliseconds(value: bytes, field: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise InvalidRequestError(
            f"{field}: expected milliseconds above 0, got {value.decode('latin-1')!r}", field
        )
    return number


def _integer(value: bytes, field: str) -> int:
    if not _INTEGER.fullmatch(value):
        raise InvalidRequestError(f"{field}: expected a whole number, got {value.decode('latin-1')!r}", field)
    return int(value)
