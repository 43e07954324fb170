"""The error for a name nobody knows: what there is, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Return the error that says `name` is no known `what`, lists those there are and picks the nearest."""
    names = sorted(known)
    begun = [n for n in names if name and n.startswith(name.lower())]
    near = begun or get_close_matches(name.lower(), names, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {what} {name!r}; {meant}known: {', '.join(names)}")
