"""Who waits at the gateway, and who is turned away: the same options for `serve` and `simulate`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Annotated, Any, get_args

import typer

from millrace.control import Band, QueueSettings, Saturation
from millrace.control.queue_settings import DropLate

WAITING = "Who waits, and who is turned away"
RULES = QueueSettings()
"""What both do if nobody says otherwise."""

_BAND = re.compile(r"[+-]?\d+(:|$)")
BAND = {"held": int, "hold": float, "reserved": int, "share": float}
RULE: dict[str, Callable[[str], Any]] = {
    "per_tenant": int,
    "starvation": float,
    "drop_late": str,
    "engine_queue": int,
    "saturation": str,
    "waiting": int,
    "kv": float,
    "stale": float,
}
NAMES = {
    "held": "max_held",
    "hold": "max_hold_s",
    "per_tenant": "max_held_per_tenant",
    "starvation": "starvation_s",
    "kv": "kv_usage",
    "stale": "stale_after_s",
}
"""What is said briefly, by its setting's name."""
LIMITS = ("waiting", "kv_usage", "stale_after_s")

Rules = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="A rule of the queue under any policy, like starvation=20, per_tenant=64 or engine_queue=0; or, "
        "for requests of priority 10 and above, 10:reserved=64,share=0.2 (repeatable; docs/queueing.md).",
        rich_help_panel=WAITING,
    ),
]


def rules_of(texts: Sequence[str] | None) -> QueueSettings:
    """Return what `--queue-rule`, each time it is given, says of the queue."""
    every = texts or ()
    said = _fields(",".join(text for text in every if not _BAND.match(text)), RULE)
    try:
        limits: dict[str, Any] = {name: said.pop(name) for name in LIMITS if name in said}
        saturation = _saturation(said.pop("saturation", "on" if limits else "off"), limits)
        if said.get("starvation_s") == inf:
            said["starvation_s"] = None
        if said.get("drop_late", "never") not in get_args(DropLate):
            raise ValueError(f"drop_late is {said['drop_late']!r}; write {', '.join(get_args(DropLate))}")
        bands = tuple(_band(text) for text in every if _BAND.match(text))
        return QueueSettings(bands=bands, saturation=saturation, **said)
    except ValueError as error:
        raise ValueError(f"--queue-rule: {str(error).removeprefix('--queue-rule: ')}") from None


def _saturation(how: str, limits: Mapping[str, Any]) -> Saturation | None:
    if how not in ("on", "off"):
        raise ValueError(f"saturation is {how!r}; write on or off")
    return Saturation(**limits) if how == "on" else None


def _band(text: str) -> Band:
    priority, _, rest = text.partition(":")
    return Band(priority=int(priority), **_fields(rest, BAND))


def _fields(text: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Read `name=value,name=value`; return settings by their own names."""
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise ValueError(f"--queue-rule: there is no {name!r}; there are {', '.join(known)}")
        try:
            found[NAMES.get(name, name)] = known[name](value)
        except ValueError:
            raise ValueError(f"--queue-rule: {name} is {value!r}; write a number") from None
    return found
