"""How much faster the simulator gets if its hot modules are compiled: the same code through mypyc.

    python benchmarks/compiled.py [--rounds N] [--tests] [--json] [--write]

A copy of the package is made in a temporary folder and the modules below are compiled there, as they are but
for `__slots__`, which compiled classes have anyway; needs mypy and a C compiler. Both then play the Azure
conversation trace on 8 replicas with `least_work`, in turns. With `--tests` the property tests are run on the
compiled copy too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copytree, ignore_patterns

ROOT = Path(__file__).resolve().parent.parent
RESULT = Path(__file__).parent / "results" / "compiled.json"
SLOTS = re.compile(r"\n    __slots__ = \([^)]*\)\n|slots=True, ")
# Modules of plain classes and functions: what defines msgspec's structs stays interpreted.
MODULES = {
    "replica": ("adapters", "batch", "blocks", "decodes", "forming", "lasting", "replica", "sequence"),
    "control": ("controller", "prefixes", "state"),
    "simulate": ("agenda", "presence", "world"),
    "core/cost": ("attention_grid", "profiled", "roofline", "scaled"),
}
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
    parser.add_argument("--tests", action="store_true", help="run the property tests on the compiled copy")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "src"
        copytree(ROOT / "src", copied, ignore=ignore_patterns("__pycache__"))
        count = compile_in(copied)
        if args.tests:
            tests(copied)
        found = {"modules": count, **measure(copied, args.rounds)}
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else "\n".join(f"{name:<28}{value}" for name, value in found.items()))


def compile_in(copied: Path) -> int:
    """Compile the modules in place; return how many there are."""
    paths = [f"millrace/{folder}/{name}.py" for folder, names in MODULES.items() for name in names]
    for path in (copied / path for path in paths):
        path.write_text(SLOTS.sub("", path.read_text()))
    tell(f"compiling {len(paths)} modules")
    mypyc = [str(Path(sys.executable).parent / "mypyc"), *paths]
    done = subprocess.run(mypyc, cwd=copied, env=_env(copied), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"mypyc failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return len(paths)


def tests(copied: Path) -> None:
    """Run the property tests on the compiled copy."""
    tell("testing what was compiled")
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/property"]
    subprocess.run(pytest, cwd=ROOT, env=_env(copied), check=True, stdout=sys.stderr)


def measure(copied: Path, rounds: int) -> dict[str, object]:
    """Return requests per CPU second of both, the best of some rounds, and whether they agree."""
    rates: dict[Path, float] = {}
    means: dict[Path, float] = {}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for source in (ROOT / "src", copied):
            rate, means[source] = play(source)
            rates[source] = max(rate, rates.get(source, 0.0))
    plain, compiled = rates[ROOT / "src"], rates[copied]
    return {
        "interpreted_per_cpu_s": round(plain),
        "compiled_per_cpu_s": round(compiled),
        "ratio": round(compiled / plain, 2),
        "same_result": means[ROOT / "src"] == means[copied],
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
