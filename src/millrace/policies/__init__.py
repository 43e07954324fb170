"""Every decision a fleet takes: one family per folder, one technique per file, each a class named `Policy`.

A policy's fields are its settings. To add one, add a file with a `Policy` class and a docstring that
names its source; `load`, the command line, the property tests and the docs find it by listing the folder.
"""

from __future__ import annotations

import ast
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from inspect import getdoc
from operator import attrgetter
from pkgutil import iter_modules
from typing import Any, Literal, get_type_hints

import msgspec

Family = Literal["queueing", "routing", "batching", "migration"]
FAMILIES: tuple[Family, ...] = ("queueing", "routing", "batching", "migration")


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A policy by name and settings: what a log header or a report needs to build it again."""

    policy: str
    settings: dict[str, Any]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy's own docstring says of it."""

    family: Family
    name: str
    about: str
    source: str
    settings: dict[str, Any]


def names(family: Family) -> list[str]:
    """Return the names of the policies shipped in a family."""
    return sorted(m.name for m in iter_modules(import_module(f"{__name__}.{family}").__path__))


def load(family: Family, text: str) -> Any:
    """Build a policy from `name`, `name(setting=value, ...)` or `some.module:Class(...)`.

    Raises ValueError for a name, a setting or a value that does not exist, naming what does.
    """
    name, settings = parse(text)
    return rebuild(family, Described(policy=name, settings=settings))


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name(setting=value, ...)` into its name and its settings (Python literals)."""
    name, bracket, rest = text.partition("(")
    if not bracket:
        return name.strip(), {}
    try:
        return name.strip(), _literals(ast.parse(f"_({rest.strip()}", mode="eval").body)
    except (SyntaxError, ValueError):
        raise ValueError(f"cannot read policy {text!r}; write it like name(setting=1.5, other=2)") from None


def describe(policy: Any) -> Described:
    """Return the name and settings from which `rebuild` makes an equal policy."""
    kind = type(policy)
    package, _, name = kind.__module__.rpartition(".")
    shipped = kind.__name__ == "Policy" and package in {f"{__name__}.{family}" for family in FAMILIES}
    found = name if shipped else f"{kind.__module__}:{kind.__qualname__}"
    return Described(policy=found, settings={n: getattr(policy, n) for n in _fields(kind)})


def rebuild(family: Family, described: Described) -> Any:
    """Build the policy that `describe` described; raises what `load` raises."""
    kind = _find(family, described.policy)
    known = _fields(kind)
    unknown = sorted(described.settings.keys() - known.keys())
    if unknown:
        listed = ", ".join(known) or "none"
        raise ValueError(
            f"{family} policy {described.policy!r} has no setting {unknown[0]!r}; it has: {listed}"
        )
    try:
        return kind(**_converted(kind, described.settings))
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"{family} policy {described.policy!r}: {error}") from None


def summaries(family: Family) -> list[Summary]:
    """Return what each policy of a family says of itself."""
    return [_summary(family, name) for name in names(family)]


def _summary(family: Family, name: str) -> Summary:
    module = import_module(f"{__name__}.{family}.{name}")
    about, _, rest = (getdoc(module) or "").partition("\n\n")
    source = " ".join(rest.partition("Source:")[2].partition("\n\n")[0].split())
    settings = _fields(module.Policy)
    return Summary(family=family, name=name, about=" ".join(about.split()), source=source, settings=settings)


def _find(family: Family, name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not attribute and name not in names(family):
        listed = ", ".join(names(family))
        raise ValueError(
            f"no {family} policy is called {name!r}; there are: {listed}; your own: module:Class"
        )
    try:
        found = import_module(module if attribute else f"{__name__}.{family}.{name}")
        return attrgetter(attribute or "Policy")(found)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {family} policy {name!r}: {error}") from None


def _fields(kind: Any) -> dict[str, Any]:
    """Return the settings of a policy with their defaults; fields that it learns (init=False) are none."""
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise ValueError(f"{kind!r} is not a dataclass; the settings of a policy are its fields")
    return {f.name: _default(f) for f in fields(kind) if f.init}


def _default(setting: Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


def _converted(kind: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as what the policy's annotations say, from what JSON or the command line had."""
    hints = get_type_hints(kind)
    needed = [
        f.name for f in fields(kind) if f.init and f.default is MISSING and f.default_factory is MISSING
    ]
    wanted = [(name, hints[name]) for name in dict.fromkeys([*settings, *needed])]
    made = msgspec.convert(settings, msgspec.defstruct("Settings", wanted))
    return {name: getattr(made, name) for name in settings}


def _literals(call: ast.expr) -> dict[str, Any]:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
        raise ValueError("not a call with settings by name")
    names = [str(k.arg) for k in call.keywords]
    if len(set(names)) < len(names):
        raise ValueError("a setting is given twice")
    return {name: ast.literal_eval(k.value) for name, k in zip(names, call.keywords, strict=True)}
