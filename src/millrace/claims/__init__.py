"""Receipts: what a paper claims, measured again from this project's code and data whenever somebody asks.

One technique per file. Its docstring says first what is claimed, then what is measured here and how, and
names its `Source:`; `KIND` says what the figures are, and `measure()` returns them with their limits. To add
a receipt, add such a file: the command line, the tests and the docs find it by listing the folder.
"""

from __future__ import annotations

import time
from importlib import import_module
from inspect import getdoc
from pkgutil import iter_modules
from typing import Any, Literal, get_args

from msgspec import Struct

from millrace.core.suggest import unknown

Kind = Literal["live", "simulated", "modelled", "numerics"]
"""Real engines on this machine; virtual time through real policies; arithmetic on data sheets and recorded
measurements of hardware that is not here; properties of code that need no hardware."""


class Check(Struct, frozen=True, kw_only=True):
    """One figure, in `unit`, and where it must lie; without limits it is there to be read.

    A figure that is not `steady` is another one in every run, like a time on this machine.
    """

    what: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    steady: bool = True

    @property
    def passed(self) -> bool:
        """Whether the figure lies within its limits."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def limits(self) -> str:
        """The limits in words, empty for none."""
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:.4g}{self.unit}" for sign, bound in bounds if bound is not None)

    @property
    def figure(self) -> str:
        """The figure with its unit."""
        return f"{self.value:.4g}{self.unit}"


class Receipt(Struct, frozen=True, kw_only=True):
    """What a file of this folder says of itself, before anything is measured."""

    name: str
    claimed: str
    about: str
    paper: str
    kind: Kind


class Verdict(Struct, frozen=True, kw_only=True):
    """What was measured of a claim, in words and in figures, and how long that took."""

    name: str
    paper: str
    claimed: str
    measured: str
    threshold: str
    passed: bool
    kind: Kind
    seconds: float
    checks: list[Check]


def names() -> list[str]:
    """Return the names of all receipts: those of the files, with hyphens."""
    files = iter_modules(__path__)
    return sorted(found.name.replace("_", "-") for found in files if not found.ispkg)


def receipt(name: str) -> Receipt:
    """Return what a receipt says of itself. Raises ValueError for a name that does not exist."""
    module = _module(name)
    claimed, _, rest = (getdoc(module) or "").partition("\n\n")
    about, _, source = rest.partition("Source:")
    assert module.KIND in get_args(Kind), f"{name} has the kind {module.KIND!r}"
    return Receipt(
        name=name,
        claimed=" ".join(claimed.split()),
        about=about.strip(),
        paper=" ".join(source.split()),
        kind=module.KIND,
    )


def measure(name: str) -> Verdict:
    """Measure a claim now. Raises ValueError for a name that does not exist."""
    found = receipt(name)
    began_s = time.perf_counter()
    checks: list[Check] = _module(name).measure()
    seconds = time.perf_counter() - began_s
    limited = [check for check in checks if check.limits]
    assert limited, f"{name} claims nothing that could fail"
    return Verdict(
        name=name,
        paper=found.paper,
        claimed=found.claimed,
        measured="; ".join(f"{check.what}: {check.figure}" for check in checks),
        threshold="; ".join(f"{check.what} {check.limits}" for check in limited),
        passed=all(check.passed for check in checks),
        kind=found.kind,
        seconds=seconds,
        checks=checks,
    )


def _module(name: str) -> Any:
    known = names()
    if name not in known:
        raise unknown("claim", name, known)
    return import_module(f"{__name__}.{name.replace('-', '_')}")
