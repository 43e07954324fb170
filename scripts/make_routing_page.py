"""Makes the tables of docs/routing.md from what benchmarks/routing.py and benchmarks/live_routing.py found.

python scripts/make_routing_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "routing.md"
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Write the page anew."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, lines in (
        ("measured", capacities(_result("routing"))),
        ("measured live", live(_result("live_routing"))),
    ):
        begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(lines) + "\n" + rest[rest.index(end) :]
    PAGE.write_text(text, encoding="utf-8")


def capacities(found: dict[str, Any]) -> list[str]:
    """Return the capacity of our policy and the best of the others in each cell, and what it comes to."""
    lines = [
        "| fleet | oracle | millrace | best of the others | the next | round_robin |",
        "|---|---:|---:|---|---|---:|",
    ]
    for name, cell in found["cells"].items():
        rates = {policy: one["capacity_rps"] for policy, one in cell["policies"].items()}
        own = cell["policies"]["millrace"]
        ranked = sorted((policy for policy in rates if policy != "millrace"), key=lambda one: -rates[one])
        best, then = (f"{policy} {rates[policy]:.3g}" for policy in ranked[:2])
        mine = f"{own['capacity_rps']:.3g} ({own['low_rps']:.3g} to {own['high_rps']:.3g})"
        row = (name, f"{cell['oracle_rps']:.3g}", mine, best, then, f"{rates['round_robin']:.3g}")
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, "", *_in_words(found["summary"])]


def live(found: dict[str, Any]) -> list[str]:
    """Return cache hits and times to the first token by policy."""
    lines = ["| policy | requests | cache hits | TTFT p50 | p95 |", "|---|---:|---:|---:|---:|"]
    for policy, one in found["policies"].items():
        p50, p95 = (f"{one[name] * 1e3:.0f} ms" for name in ("ttft_p50_s", "ttft_p95_s"))
        lines.append(f"| {policy} | {one['completed']} | {one['cache_hit']:.1%} | {p50} | {p95} |")
    return lines


def _in_words(summed: dict[str, Any]) -> list[str]:
    behind = summed["cells_behind_beyond_noise"]
    return [
        "Requests per second, simulated, with 95 % intervals. Over all of them `millrace` takes "
        f"{summed['over_best_published']:.2f} times what the best published",
        "policy of each row takes (geometric mean), and "
        f"{summed['of_oracle']:.0%} of what the oracle takes. "
        + (
            f"Another is better beyond noise in: {'; '.join(behind)}."
            if behind
            else "None is better beyond noise."
        ),
    ]


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
