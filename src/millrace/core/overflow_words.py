"""How a guard against overflow is described in words, on every command line."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from millrace.core.overflow import GuardSettings
from millrace.core.suggest import unknown

DEEDS = ("watch", "cap", "remind")
NUMBERS = {
    "long": ("long_tokens", int),
    "share": ("share", float),
    "evidence": ("evidence", int),
    "remembered": ("remembered", int),
    "quantile": ("quantile", float),
    "headroom": ("headroom", float),
    "floor": ("floor_tokens", int),
}
USUAL = GuardSettings()


def parse_guard(text: str) -> GuardSettings | None:
    """Read `off`, or what is to be done and numbers, like `cap,remind,long=1000`. Raises ValueError."""
    if text == "off":
        return None
    fields: dict[str, Any] = {}
    for word in text.split(","):
        name, equals, value = word.strip().partition("=")
        if equals:
            field, kind = _number(name)
            fields[field] = _read(word, value, kind)
        elif name not in DEEDS:
            raise ValueError(f"overflow guard: {unknown('word', name, ('off', *DEEDS))}")
        elif name != "watch":
            fields[f"{name}s"] = True
    return replace(USUAL, **fields)


def _number(name: str) -> tuple[str, type[int] | type[float]]:
    if name not in NUMBERS:
        raise ValueError(f"overflow guard: {unknown('number', name, NUMBERS)}")
    return NUMBERS[name]


def _read(word: str, value: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(
            f"overflow guard: cannot read {word!r}; write it like long=1000 or share=0.5"
        ) from None
