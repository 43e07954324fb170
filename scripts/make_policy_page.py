"""Writes docs/policies.md from the policies' own docstrings.

    python scripts/make_policy_page.py [--check]

With `--check` it writes nothing and fails if the page does not say what the docstrings say.
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import getdoc
from pathlib import Path

from millrace.policies import FAMILIES, Family, Summary, summaries

PAGE = Path(__file__).resolve().parent.parent / "docs" / "policies.md"
HEAD = """\
# Policies

Made from the policies' docstrings by `python scripts/make_policy_page.py`; edit those, not this page.
On the command line `millrace policies` says the same. To add your own, see [Add a policy](add-a-policy.md).

Settings go in brackets after the name: `--routing "two_choices(seed=7)"`.
A policy from your own module is named by its place: `--routing my_package.my_module:Policy`.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(_family(family) for family in FAMILIES if summaries(family))])


def main(arguments: list[str], path: Path = PAGE) -> int:
    """Write the page, or compare it; return the exit status."""
    if "--check" not in arguments:
        path.write_text(page(), encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == page():
        return 0
    print(f"{path.name} is not what the docstrings say; run: python scripts/make_policy_page.py")
    return 1


def _family(family: Family) -> str:
    title = family.capitalize()
    about = (getdoc(import_module(f"millrace.policies.{family}")) or "").removeprefix(f"{title}: ")
    return "\n".join([f"## {title}", "", about[:1].upper() + about[1:], "", *map(_policy, summaries(family))])


def _policy(summary: Summary) -> str:
    kind = import_module(f"millrace.policies.{summary.family}.{summary.name}").Policy
    settings = ", ".join(f"`{name}={value!r}`" for name, value in summary.settings.items())
    lines = [f"### {summary.name}", "", summary.about, "", " ".join((getdoc(kind) or "").split()), ""]
    lines += [f"- Settings: {settings or 'none'}", f"- Source: {summary.source}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
