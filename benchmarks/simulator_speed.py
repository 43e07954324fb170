"""How many requests the simulator plays per second of processor time: leaping against stepping, in one run.

    python benchmarks/simulator_speed.py [--requests N] [--times N] [--json] [--write]
    python benchmarks/simulator_speed.py --vidur PATH [--vidur-python PYTHON]

The workload is the Azure conversation trace on llama-3-8b and a100-80g (all of it by default), through the
real controller with `least_work`, and the Mooncake conversation trace on 16 replicas with prefix-aware
routing. Stepping, which is slow, plays the first part only, and leaping the same part for comparison. The
same trace many times over, from a generator, shows whether the cost of a request grows with their number;
more replicas than the traffic needs show what an idle one costs. `--vidur` names a checkout of Vidur
(microsoft/vidur, MIT) and `--vidur-python` an interpreter that has what it imports, if this one has not: its
simulator plays the first part too, and only its own run is timed, not the training of its predictors.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from msgspec.structs import replace

from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.request import Slo
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import Job, jobs_of, servers, simulate

RESULT = Path(__file__).parent / "results" / "simulator_speed.json"
STEPPED = 2000
ROUNDS = 3
REPLICAS = 8
TIMES = 50
AZURE = "a100-80g llama-3-8b"
MOONCAKE = "16x a100-80g llama-3-8b max_model_len=131072 block_size=512"
VIDUR_TOKENS, VIDUR_SEQUENCES, VIDUR_CHUNK = 16384, 256, 512
# What Vidur's own `main` does, with a clock around the simulation.
VIDUR = """
import time
from vidur.config import SimulationConfig
from vidur.simulator import Simulator
from vidur.utils.random import set_seeds
config = SimulationConfig.create_from_cli_args()
set_seeds(config.seed)
simulator = Simulator(config)
began_s = time.process_time()
simulator.run()
print("CPU seconds", time.process_time() - began_s)
"""


def main() -> None:
    """Measure and print; `--write` keeps the result beside the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=None, help="of each trace; all if left out")
    parser.add_argument("--times", type=int, default=TIMES, help="how often the trace is repeated")
    parser.add_argument("--vidur", type=Path, default=None, help="a checkout of Vidur")
    parser.add_argument(
        "--vidur-python", default=sys.executable, help="what runs it; this Python if left out"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    if args.vidur and not (args.vidur / "vidur" / "main.py").is_file():
        parser.error(f"--vidur: {args.vidur} is no checkout of Vidur: it has no vidur/main.py")
    vidur = (args.vidur_python, args.vidur) if args.vidur else None
    found = measure(args.requests, args.times, vidur)
    text = json.dumps(found, indent=1)
    if args.write:
        RESULT.write_text(text + "\n")
    print(text if args.json else table(found))


def measure(limit: int | None, times: int, vidur: tuple[str, Path] | None) -> dict[str, Any]:
    """Return requests per CPU second of every case, and how often as fast leaping is as stepping."""
    azure = list(islice(jobs_of(open_trace("azure_conv_2023"), "llama-3-8b", Slo()), limit))
    conversation = jobs_of(open_trace("mooncake_conversation"), "llama-3-8b", Slo())
    mooncake = sorted(islice(conversation, limit), key=lambda job: job.t_s)
    part = azure[:STEPPED]
    rates: dict[str, float] = {}
    leaps: dict[str, float] = {}
    for count in (1, REPLICAS):
        fleet, name = f"{count}x {AZURE}", f"azure, {count} replicas"
        rates[f"{name}, leaping"] = best(azure, fleet, "least_work")
        first = rates[f"{name}, leaping, first {len(part)}"] = best(part, fleet, "least_work")
        stepped = best(part, fleet, "least_work", leaping=False)
        rates[f"{name}, stepping, first {len(part)}"] = stepped
        leaps[name] = round(first / stepped, 1)
        tell(f"{count} replicas done")
    fleet = f"{REPLICAS}x {AZURE}"
    rates["azure, 64 replicas of which most idle, leaping"] = best(azure, f"64x {AZURE}", "round_robin")
    rates["azure, 64 replicas, least_work, leaping"] = best(azure, f"64x {AZURE}", "least_work")
    rates[f"azure, {REPLICAS} replicas, round_robin, leaping"] = best(azure, fleet, "round_robin")
    rates["mooncake, 16 replicas, prefix_affinity, leaping"] = best(mooncake, MOONCAKE, "prefix_affinity")
    for again in (1, times):  # both from the generator, whose own cost is in both
        name = f"azure, {REPLICAS} replicas, round_robin, {again} times over, requests made on the way"
        rates[name] = max(streamed(azure, again, fleet) for _ in range(ROUNDS if again == 1 else 1))
    if vidur:
        same = f"azure, {REPLICAS} replicas, round robin, first {len(part)}"
        rates[f"Vidur, {same}"] = vidur_rate(*vidur, part)
        rates[f"Millrace beside it, {same}, leaping"] = best(part, fleet, "round_robin")
        rates[f"Millrace beside it, {same}, stepping"] = best(part, fleet, "round_robin", leaping=False)
    return {
        "requests": {"azure": len(azure), "mooncake": len(mooncake)},
        "requests_per_cpu_s": {name: round(rate) for name, rate in rates.items()},
        "leaping_over_stepping": leaps,
        "machine": f"{platform.machine()}, CPython {platform.python_version()}, one core",
    }


def best(jobs: Sequence[Job], fleet: str, routing: str, *, leaping: bool = True) -> float:
    """Return the best of some rounds, in requests per CPU second."""
    return len(jobs) / min(seconds(jobs, fleet, routing, leaping=leaping) for _ in range(ROUNDS))


def seconds(
    jobs: Iterable[Job], fleet: str, routing: str, *, leaping: bool = True, keep: bool = True
) -> float:
    """Play the jobs once, and return the processor time."""
    controller = Controller(load("routing", routing), load("queueing", "fcfs"))
    parts, batching = servers(parse_fleet(fleet)), load("batching", "split_fuse")
    began_s = process_time()
    simulate(jobs, parts, controller, batching, leaping=leaping, keep_outcomes=keep)
    return process_time() - began_s


def streamed(jobs: Sequence[Job], times: int, fleet: str) -> float:
    """Requests per CPU second where no list of them is ever whole."""
    return len(jobs) * times / seconds(repeated(jobs, times), fleet, "round_robin", keep=False)


def repeated(jobs: Sequence[Job], times: int) -> Iterator[Job]:
    """The jobs over and over, with other ids."""
    span_s = jobs[-1].t_s + 1.0
    for n in range(times):
        for job in jobs:
            request = replace(job.request, id=f"{job.request.id}-{n}")
            yield replace(job, t_s=job.t_s + n * span_s, request=request)


def vidur_rate(python: str, checkout: Path, jobs: Sequence[Job]) -> float:
    """Let Vidur play the jobs with chunked prefill and the same limits, without its metrics."""
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.csv"
        with trace.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("arrived_at", "num_prefill_tokens", "num_decode_tokens"))
            rows.writerows((job.t_s, job.prompt_tokens, job.output_tokens) for job in jobs)
        command = [python, "-c", VIDUR, *vidur_options(trace)]
        done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=False)
    took = re.search(r"^CPU seconds (\S+)$", done.stdout, re.MULTILINE)
    if done.returncode or not took:
        raise SystemExit(f"Vidur in {checkout} ended with status {done.returncode}; see what it said above")
    return len(jobs) / float(took[1])


def vidur_options(trace: Path) -> Iterator[str]:
    """Yield what Vidur's `main` is told; what it keeps of its training stays in `cache` of its checkout."""
    forest = "random_forrest_execution_time_predictor_config"  # its spelling
    options = {
        "replica_config_model_name": "meta-llama/Meta-Llama-3-8B",
        "replica_config_device": "a100",
        "cluster_config_num_replicas": REPLICAS,
        "request_generator_config_type": "trace_replay",
        "trace_request_generator_config_trace_file": trace,
        "trace_request_generator_config_max_tokens": VIDUR_TOKENS,
        "replica_scheduler_config_type": "sarathi",
        "sarathi_scheduler_config_batch_size_cap": VIDUR_SEQUENCES,
        "sarathi_scheduler_config_chunk_size": VIDUR_CHUNK,
        f"{forest}_prediction_max_prefill_chunk_size": VIDUR_CHUNK,
        f"{forest}_prediction_max_batch_size": VIDUR_SEQUENCES,
        f"{forest}_prediction_max_tokens_per_request": VIDUR_TOKENS,
        # Its usual search for the best forest takes hours. A step is looked up in tables filled beforehand,
        # whichever forest filled them.
        f"{forest}_num_estimators": 50,
        f"{forest}_max_depth": 16,
        f"{forest}_min_samples_split": 2,
        f"{forest}_k_fold_cv_splits": 2,
        "metrics_config_output_dir": trace.parent,
    }
    for name, value in options.items():
        yield from (f"--{name}", str(value))
    for name in ("write_metrics", "write_json_trace", "store_plots", "enable_chrome_trace"):
        yield f"--no-metrics_config_{name}"


def table(found: dict[str, Any]) -> str:
    """Return the result for people."""
    rows = [f"{rate:>9,}  {name}" for name, rate in found["requests_per_cpu_s"].items()]
    leaps = [
        f"{times:>9}  times as fast as stepping: {name}"
        for name, times in found["leaping_over_stepping"].items()
    ]
    return "\n".join(["requests per CPU second, simulated fleets", *rows, *leaps])


def tell(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
