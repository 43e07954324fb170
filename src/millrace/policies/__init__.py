"""Every decision a fleet takes: one family per folder, one technique per file, each a class named `Policy`.

A policy's fields are its settings. To add one, add a file with a `Policy` class and a docstring that
names its source; `load`, the command line, the property tests and the docs find it by listing the folder.
"""

from __future__ import annotations

import ast
from importlib import import_module
from inspect import getdoc
from pkgutil import iter_modules
from typing import Any, Literal

import msgspec

Family = Literal["queueing", "routing", "batching"]
FAMILIES: tuple[Family, ...] = ("queueing", "routing", "batching")


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
    kind = _find(family, name)
    known = _fields(kind)
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        raise ValueError(f"{family} policy {name!r} has no setting {unknown[0]!r}; it has: {_listed(known)}")
    try:
        return msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{family} policy {name!r}: {error}") from None


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name(setting=value, ...)` into its name and its settings (Python literals)."""
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f"_({rest}", mode="eval").body
        assert isinstance(call, ast.Call)
        return name, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise ValueError(f"cannot read policy {text!r}; write it like name(setting=1.5, other=2)") from None


def describe(policy: Any) -> Described:
    """Return the name and settings from which `rebuild` makes an equal policy."""
    kind = type(policy)
    package, _, name = kind.__module__.rpartition(".")
    shipped = kind.__name__ == "Policy" and package in {f"{__name__}.{family}" for family in FAMILIES}
    found = name if shipped else f"{kind.__module__}:{kind.__qualname__}"
    return Described(policy=found, settings={n: getattr(policy, n) for n in _fields(kind)})


def rebuild(family: Family, described: Described) -> Any:
    """Build the policy that `describe` described."""
    return msgspec.convert(described.settings, _find(family, described.policy))


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
        return getattr(
            import_module(module if attribute else f"{__name__}.{family}.{name}"), attribute or "Policy"
        )
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {family} policy {name!r}: {error}") from None


def _fields(kind: Any) -> dict[str, Any]:
    fields = getattr(kind, "__dataclass_fields__", {})
    return {name: field.default for name, field in fields.items()}


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(fields) or "none"
