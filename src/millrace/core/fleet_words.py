"""How single options of a fleet described in words are read; each error names the option and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping

from millrace.core.cost.overlapping import OVERLAPS, Overlap
from millrace.core.replica import Role
from millrace.core.suggest import unknown

ROLES: tuple[Role, ...] = ("both", "prefill", "decode", "encode")


def whole(options: Mapping[str, str], name: str, default: int) -> int:
    """Return a whole number of at least 1, or the default where it is not said."""
    text = options.get(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name} is {text!r}; write a whole number of at least 1")
    return int(text)


def switch(options: Mapping[str, str], name: str, default: bool) -> bool:
    """Return whether it is on, or the default where it is not said."""
    text = options.get(name, "on" if default else "off")
    if text not in ("on", "off"):
        raise ValueError(f"{name} is {text!r}; write on or off")
    return text == "on"


def role_of(text: str) -> Role:
    """Return what a replica does. Raises ValueError for what is no role."""
    for role in ROLES:
        if role == text:
            return role
    raise ValueError(f"role is {text!r}; write both, prefill, decode or encode")


def overlap_of(options: Mapping[str, str]) -> Overlap | None:
    """Return how the engine keeps its devices busy; None where it is not said."""
    if "overlap" not in options:
        return None
    for overlap in OVERLAPS:
        if overlap == options["overlap"]:
            return overlap
    raise unknown("overlap", options["overlap"], OVERLAPS)


def dollars(text: str) -> float:
    """Return the price of a device for an hour."""
    if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        raise ValueError(f"price is {text!r}; write dollars an hour for one device, like 2.5")
    return float(text)
