"""How true the simulator is: recorded runs of real engines, replayed with each quality of cost model.

A run is a folder with `requests.jsonl` and `meta.json`, as LLMServingSim's benchmark of vLLM writes them; a
folder of runs stands for all of them. Its requests go through the simulator at the moments they arrived at
the engine, and what comes out is held against what the engine did. Nothing is fitted to a run: prices come
from operator times, measured apart, in
  PROFILES/serving/GPU/ORG/MODEL/bf16     tables of LLMServingSim; fp8, bf16-kvfp8, as the run's dtypes say
  PROFILES/models/MODEL.json              the model's config.json
  PROFILES/network/GPU.../all_reduce.csv  collectives as Vidur times them, where there are any

    python benchmarks/fidelity.py RUN... --profiles PROFILES [--json] [--write FILE] [--page FILE]

Errors are signed shares: -0.01 is a simulation that is 1 % faster than the engine was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import process_time

import msgspec

from millrace.control import Controller
from millrace.core.cost import CostModel, Profiled, Roofline
from millrace.core.cost.pipelined import Pipelined
from millrace.core.outcome import Outcome
from millrace.core.profile.recording import Served
from millrace.core.replica import ReplicaSpec
from millrace.core.request import Request
from millrace.core.stats import mean, percentile
from millrace.data.aiconfigurator import open_operators
from millrace.data.profiles import open_serving
from millrace.data.runs import Run, open_run, runs_in
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, simulate

COSTS = ("roofline", "fit", "grid")
INSTALLED = "aiconfigurator"  # a fourth, where that package is
METRICS = ("ttft", "tpot", "e2e")
SUMMED: dict[str, Callable[[list[float]], float]] = {
    "mean": mean,
    "p90": partial(percentile, percent=90),
    "p99": partial(percentile, percent=99),
}
BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->"


@dataclass(frozen=True)
class Fidelity:
    """How far the simulation of one run is off, and what its cost model says of single steps."""

    run: str
    cost: str
    ttft_mean_error: float
    tpot_mean_error: float
    e2e_mean_error: float
    e2e_p90_error: float
    e2e_p99_error: float
    requests: int
    cpu_s: float
    expected_error: str
    ttft_p90_error: float
    ttft_p99_error: float
    tpot_p90_error: float
    tpot_p99_error: float

    def shown(self, metric: str) -> str:
        """Return a metric's errors, of its mean and tails, as they stand in the table."""
        found = [getattr(self, f"{metric}_{summed}_error") for summed in SUMMED]
        return " / ".join(f"{error:+.1%}".rstrip("%") for error in found) + " %"


def cost_model(quality: str, run: Run) -> Roofline | Profiled | Pipelined:
    """Return the cost model of this quality."""
    cost = _of_stage(quality, run)
    if run.stages == 1:
        return cost
    step_tokens = run.limits.step_tokens // run.stages
    return Pipelined(cost, run.model, run.device, stages=run.stages, step_tokens=step_tokens)


def _of_stage(quality: str, run: Run) -> Roofline | Profiled:
    setup = run.setup
    if quality == "roofline":
        return setup.sheet
    if quality == INSTALLED:
        return open_operators(setup)
    tables = open_serving(run.times, run.model, setup.tensor_parallel)
    return tables.fitted(setup) if quality == "fit" else tables.grid(setup)


def replay(run: Run, cost: CostModel) -> list[Outcome]:
    """Serve the run's requests in virtual time, first come first served."""
    ranks = run.engine.engine_kwargs.data_parallel_size
    together = ranks if run.model.experts else 1  # ranks without experts to share are engines of their own
    spec = ServerSpec(
        id="r0",
        spec=ReplicaSpec(models=(run.engine.model,), limits=run.limits),
        cost=cost,
        ahead=run.engine.ahead,
        ranks=together,
    )
    fleet = [msgspec.structs.replace(spec, id=f"r{n}") for n in range(ranks // together)]
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    return simulate(_jobs(run), fleet, controller, load("batching", "split_fuse")).outcomes


def _jobs(run: Run) -> list[Job]:
    return [_job(index, each, run) for index, each in enumerate(run.requests)]


def _job(index: int, served: Served, run: Run) -> Job:
    """No two requests share a block, but a preempted one may find its own again, prompt and answer."""
    block_tokens = run.engine.kv_cache.block_size
    blocks = (served.prompt_tokens + served.output_tokens) // block_tokens
    prompt, output = served.prompt_tokens, served.output_tokens
    return Job(
        t_s=served.arrived_s,
        request=Request(id=served.id, model=run.engine.model, prompt_tokens=prompt, max_tokens=output),
        prompt_tokens=prompt,
        output_tokens=output,
        blocks=tuple(index << 32 | block for block in range(blocks)),
        block_tokens=block_tokens,
    )


def compare(run: Run, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the errors of a simulation, relative to what was measured."""
    failed = [outcome for outcome in outcomes if outcome.status != "completed"]
    if failed:
        raise ValueError(f"{run.name}: {len(failed)} requests did not complete: {failed[0].error}")

    def error(metric: str, summed: Callable[[list[float]], float]) -> float:
        found, true = ([getattr(each, f"{metric}_s") for each in those] for those in (outcomes, run.requests))
        return summed([v for v in found if v is not None]) / summed([v for v in true if v is not None]) - 1

    return {
        f"{metric}_{name}_error": error(metric, summed)
        for metric in METRICS
        for name, summed in SUMMED.items()
    }


def measure(run: Run, quality: str) -> Fidelity:
    """Replay a run with a cost model of this quality; the CPU is that of the replay."""
    cost = cost_model(quality, run)
    began_s = process_time()
    outcomes = replay(run, cost)
    cpu_s = round(process_time() - began_s, 3)
    errors = compare(run, outcomes)
    return Fidelity(
        run.name, quality, **errors, requests=len(outcomes), cpu_s=cpu_s, expected_error=cost.expected_error
    )


def table(rows: Sequence[Fidelity]) -> str:
    """Return the rows as a table in Markdown."""
    heads = ("run", "cost model", *(f"{metric.upper()} mean / p90 / p99" for metric in METRICS), "CPU s")
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * 4}"]
    for row in rows:
        errors = " | ".join(row.shown(metric) for metric in METRICS)
        lines.append(f"| {row.run} | {row.cost} | {errors} | {row.cpu_s:.2f} |")
    return "\n".join(lines) + "\n"


def claims(rows: Sequence[Fidelity]) -> str:
    """Return, as a table in Markdown, what each cost model says of single steps."""
    lines = ["| run | cost model | expected error of a step |", "|---|---|---|"]
    lines += [f"| {row.run} | {row.cost} | {row.expected_error} |" for row in rows]
    return "\n".join(lines) + "\n"


def page(text: str, rows: Sequence[Fidelity]) -> str:
    """Return a page with the tables between its marks made anew. Raises ValueError if it has no marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END} around its tables")
    return before + begin + table(rows) + "\n" + claims(rows) + end + after


def main() -> int:
    """Replay the runs asked for; print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--profiles", type=Path, required=True)
    parser.add_argument("--cost", nargs="+", choices=(*COSTS, INSTALLED), default=COSTS)
    parser.add_argument("--gpu", help="the folder of PROFILES/serving to take, where a run does not tell")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, help="write the JSON to this file as well")
    parser.add_argument("--page", type=Path, help="make the tables of this page anew")
    asked = parser.parse_args()
    rows: list[Fidelity] = []
    try:
        for folder in [run for path in asked.runs for run in runs_in(path)]:
            run = open_run(folder, asked.profiles, asked.gpu)
            rows += [measure(run, quality) for quality in asked.cost]
        put(rows, asked)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def put(rows: Sequence[Fidelity], asked: argparse.Namespace) -> None:
    """Print the rows, and write them where they were asked for."""
    text = json.dumps({"runs": [asdict(row) for row in rows]}, indent=2) + "\n"
    print(text if asked.json else table(rows), end="")
    if asked.write:
        asked.write.write_text(text, encoding="utf-8")
    if asked.page:
        asked.page.write_text(page(asked.page.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
