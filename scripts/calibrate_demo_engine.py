"""Measures the embedded engine with the demo model on this machine and fits the linear cost model to it.

Every fifth kind of step is held out of the fit; the error that is written down is that of the held-out ones.

    python scripts/calibrate_demo_engine.py [--seconds 60] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from millrace.core.cost import fit
from millrace.data import demo_model
from millrace.engine.calibration import measure
from millrace.engine.executor import TorchExecutor
from millrace.engine.weights import load_model

OUT = Path(__file__).parents[1] / "src/millrace/data/calibration/demo-cpu.json"
# What the demo gives each of its engines.
KV_BLOCKS, BLOCK_TOKENS, SEQUENCES, STEP_TOKENS = 320, 16, 32, 256


def main() -> None:
    """Measure, fit, and write the calibration."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="time to measure for")
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; the demo's engines have one each"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(demo_model(), dtype=torch.float32)
    executor = TorchExecutor(model, kv_blocks=KV_BLOCKS, block_tokens=BLOCK_TOKENS)
    samples = measure(executor, args.seconds, sequences=SEQUENCES, step_tokens=STEP_TOKENS)
    linear = fit(samples, source=_source(args.threads))
    args.out.write_text(json.dumps(linear.to_dict(), indent=1) + "\n")
    print(f"{len(samples)} kinds of steps; off by {linear.expected_error}; wrote {args.out}", file=sys.stderr)


def _source(threads: int) -> str:
    day = datetime.now(UTC).date().isoformat()
    where = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    return f"scripts/calibrate_demo_engine.py, {day}, {where}, torch {torch.__version__}, {threads} thread(s)"


if __name__ == "__main__":
    main()
