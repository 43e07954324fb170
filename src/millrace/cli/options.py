"""How the command line reads durations, factors, objectives and lists of policies."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import typer

from millrace.core.request import Slo

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|m|h)")
_FACTOR = re.compile(r"x?\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*x?", re.IGNORECASE)

T = TypeVar("T")


def duration_s(text: str) -> float:
    """Read `500ms`, `1.5s`, `2m` or `1h`; a bare number has no unit and is refused."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"cannot read the duration {text!r}; write a number with a unit, like 500ms or 2s")
    return float(found[1]) * _UNITS_S[found[2]]


def times(text: str) -> float:
    """Read `x2`, `0.5x` or plainly `2`: how many times as much; it must be above 0."""
    found = _FACTOR.fullmatch(text.strip())
    if not found or not 0 < float(found[1]) < float("inf"):
        raise ValueError(f"{text!r} is no factor; write a number above 0, like x2 or 0.5")
    return float(found[1])


def factor(value: object) -> float:
    """Let typer read a factor: a plain ValueError would lose its words."""
    try:
        return times(str(value))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def read(option: str, how: Callable[[str], T], text: str | None) -> T | None:
    """Read what an option was given, if anything; an error names the option."""
    try:
        return None if text is None else how(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def slo_of(text: str) -> Slo:
    """Read `ttft=500ms,tpot=50ms`, in any order; what is not named is not promised."""
    limits_s: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name.strip() not in ("ttft", "tpot"):
            raise ValueError(
                f"unknown objective {name.strip()!r}; there are ttft and tpot, like ttft=1s,tpot=50ms"
            )
        limits_s[name.strip()] = duration_s(value)
    return Slo(ttft_s=limits_s.get("ttft"), tpot_s=limits_s.get("tpot"))


def names_of(text: str) -> list[str]:
    """Split a list at its commas, but not at those inside parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]
