"""How much faster the simulator gets if its hot modules are compiled: the same code, built as users build it.

    python benchmarks/compiled.py [--rounds N] [--json] [--write]

Millrace is built from this checkout with MILLRACE_COMPILED=1 and installed into a temporary folder; needs a C
compiler. Both then play the Azure conversation trace on 8 replicas with `least_work`, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "compiled.json"
PLAY = """
import json, sys, time
from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.request import Slo
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import jobs_of, servers, simulate
jobs = list(jobs_of(open_trace("azure_conv_2023"), "llama-3-8b", Slo()))
best_s = float("inf")
for _ in range(2):
    controller = Controller(load("routing", "least_work"), load("queueing", "fcfs"))
    fleet = servers(parse_fleet("8x a100-80g llama-3-8b"))
    began_s = time.process_time()
    found = simulate(jobs, fleet, controller, load("batching", "split_fuse"))
    best_s = min(best_s, time.process_time() - began_s)
print(json.dumps([len(jobs) / best_s, found.measured.e2e_s.mean]))
"""


def main() -> None:
    """Compile, measure and print; `--write` keeps the result beside the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = build(Path(folder))
        found = {"modules": count, **measure(Path(folder), args.rounds)}
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else "\n".join(f"{name:<28}{value}" for name, value in found.items()))


def build(folder: Path) -> int:
    """Install a compiled build of this checkout into the folder; return how many modules are compiled."""
    tell("compiling")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(ROOT)]
    subprocess.run(pip, env={**os.environ, "MILLRACE_COMPILED": "1"}, check=True, stdout=sys.stderr)
    return sum(1 for _ in (folder / "millrace").rglob("*.so"))


def measure(compiled_in: Path, rounds: int) -> dict[str, object]:
    """Return requests per CPU second of both, the best of some rounds, and whether they agree."""
    rates: dict[Path, float] = {}
    means: dict[Path, float] = {}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for source in (ROOT / "src", compiled_in):
            rate, means[source] = play(source)
            rates[source] = max(rate, rates.get(source, 0.0))
    plain, compiled = rates[ROOT / "src"], rates[compiled_in]
    return {
        "interpreted_per_cpu_s": round(plain),
        "compiled_per_cpu_s": round(compiled),
        "ratio": round(compiled / plain, 2),
        "same_result": means[ROOT / "src"] == means[compiled_in],
        "machine": f"{platform.machine()}, CPython {platform.python_version()}, one core",
    }


def play(source: Path) -> tuple[float, float]:
    """Return requests per CPU second with the package in this folder, and the mean latency as a check."""
    argv = [sys.executable, "-c", PLAY]
    done = subprocess.run(argv, env=_env(source), stdout=subprocess.PIPE, text=True, check=True)
    rate, mean_s = json.loads(done.stdout)
    return rate, mean_s


def tell(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


def _env(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(source)}


if __name__ == "__main__":
    main()
