"""Writes docs/claims.md from the receipts' own docstrings and from what they measure, in about two minutes.

    python scripts/make_claims_page.py [--check]

With `--check` it writes nothing and fails if the page does not say what the receipts say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from millrace.claims import Check, Verdict, measure, names, receipt

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "claims.md"
HEAD = """\
# Claims

What papers claim, measured again from this project's code and data. Made by the script
`scripts/make_claims_page.py` from the files in [`src/millrace/claims`](../src/millrace/claims/__init__.py):
edit those, not this page. `millrace claims` measures all of them on your machine, `millrace claims NAME` one;
both exit with 1 if a claim fails.

Each receipt says what kind its figures are. *Simulated*: virtual time. *Modelled*: arithmetic on data sheets
and on recorded measurements of hardware that is not here. *Numerics*: properties of code. *Live*: engines on
the machine at hand. Figures are rounded to three digits; those without a limit are there to be read.
"""


def page(verdicts: Iterable[Verdict]) -> str:
    """Return the whole page for these verdicts, in the order of their names."""
    found = sorted(verdicts, key=lambda verdict: verdict.name)
    return "\n".join([HEAD, *_overview(found), "", *(_section(verdict) for verdict in found)])


def main(arguments: list[str], path: Path = PAGE) -> int:
    """Write the page, or compare it; return the exit status."""
    text = page(measure(name) for name in names())
    if "--check" not in arguments:
        path.write_text(text, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{path.name} is not what the receipts say; run: python scripts/make_claims_page.py")
    return 1


def _overview(found: list[Verdict]) -> list[str]:
    rows = [f"| [{v.name}](#{v.name}) | {v.claimed} | {v.kind} | {_outcome(v)} |" for v in found]
    return ["| claim | what is claimed | figures | here |", "|---|---|---|---|", *rows]


def _outcome(verdict: Verdict) -> str:
    if verdict.kind == "live":
        return "varies"
    return "holds" if verdict.passed else "**fails**"


def _section(verdict: Verdict) -> str:
    about = receipt(verdict.name).about
    code = f"../src/millrace/claims/{verdict.name.replace('-', '_')}.py"
    lines = [f"## {verdict.name}", "", verdict.claimed, "", about, ""]
    lines += ["| figure | measured | limit |", "|---|---:|---|", *map(_row, verdict.checks), ""]
    lines += [f"- Figures: {verdict.kind}", f"- Source: {verdict.paper}", f"- [Code]({code})", ""]
    return "\n".join(lines)


def _row(check: Check) -> str:
    return f"| {check.what} | {_rounded(check) if check.steady else 'varies'} | {check.limits} |"


def _rounded(check: Check) -> str:
    """Three digits of a fraction; counts in full, and what is as good as 0 as 0."""
    value = check.value
    if value == int(value):
        return f"{value:,.0f}{check.unit}"
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits if abs(value) > 1e-9 else 0}{check.unit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
