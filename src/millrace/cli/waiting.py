"""Who waits at the gateway, and who is turned away: the same options for `serve` and `simulate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Annotated, Any, get_args

import typer

from millrace.control import Band, QueueSettings, Saturation
from millrace.control.queue_settings import DropLate

WAITING = "Who waits, and who is turned away"
RULES = QueueSettings()
"""What both do if nobody says otherwise."""

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

Bands = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PRIORITY\\[:held=N,hold=S,reserved=N,share=X]",
        help="Rules for requests of this priority and above, like 10:reserved=64,share=0.2 (repeatable).",
        rich_help_panel=WAITING,
    ),
]
Rules = Annotated[
    str,
    typer.Option(
        metavar="RULE=VALUE,...",
        help="Rules of the queue under any policy, like starvation=20,per_tenant=64,engine_queue=0 "
        "(see docs/queueing.md).",
        rich_help_panel=WAITING,
    ),
]


def rules_of(bands: Sequence[str] | None, text: str) -> QueueSettings:
    """Return what `--band` and `--queue-rules` say of the queue."""
    said = _fields("--queue-rules", text, RULE)
    try:
        limits: dict[str, Any] = {name: said.pop(name) for name in LIMITS if name in said}
        saturation = _saturation(said.pop("saturation", "on" if limits else "off"), limits)
        if said.get("starvation_s") == inf:
            said["starvation_s"] = None
        if said.get("drop_late", "never") not in get_args(DropLate):
            raise ValueError(f"drop_late is {said['drop_late']!r}; write {', '.join(get_args(DropLate))}")
        return QueueSettings(bands=tuple(map(_band, bands or ())), saturation=saturation, **said)
    except ValueError as error:
        raise ValueError(_named(error)) from None


def _named(error: ValueError) -> str:
    return str(error) if str(error).startswith("--") else f"--queue-rules: {error}"


def _saturation(how: str, limits: Mapping[str, Any]) -> Saturation | None:
    if how not in ("on", "off"):
        raise ValueError(f"saturation is {how!r}; write on or off")
    return Saturation(**limits) if how == "on" else None


def _band(text: str) -> Band:
    priority, _, rest = text.partition(":")
    fields = _fields("--band", rest, BAND)
    try:
        return Band(priority=int(priority), **fields)
    except ValueError as error:
        raise ValueError(f"--band {text!r}: {error}") from None


def _fields(option: str, text: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Read `name=value,name=value`; return settings by their own names."""
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise ValueError(f"{option} has no {name!r}; there are {', '.join(known)}")
        try:
            found[NAMES.get(name, name)] = known[name](value)
        except ValueError:
            raise ValueError(f"{option}: {name} is {value!r}; write a number") from None
    return found
