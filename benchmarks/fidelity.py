"""How true the simulator is: recorded runs of real engines, replayed with each quality of cost model.

A run is a folder with `requests.jsonl` and `meta.json`, as LLMServingSim's benchmark of vLLM writes them. Its
requests go through the simulator at the moments they arrived at the engine, and what comes out is held
against what the engine did. Nothing is fitted to a run: prices come from operator times, measured apart, in
  PROFILES/serving/GPU/ORG/MODEL/bf16     tables of LLMServingSim
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
from pathlib import Path
from time import process_time

import msgspec

from millrace.control import Controller
from millrace.core.catalogue import DEVICES
from millrace.core.cost import CostModel, Profiled, Roofline
from millrace.core.cost.roofline import HOST_S
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec
from millrace.core.outcome import Outcome
from millrace.core.profile import Setup
from millrace.core.profile.recording import EngineRecord, Served
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Request
from millrace.core.stats import mean, percentile
from millrace.data.profiles import (
    open_all_reduce,
    open_description,
    open_engine,
    open_model,
    open_requests,
    open_serving,
)
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, simulate

COSTS = ("roofline", "fit", "grid")
VARIANT = "bf16"
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


@dataclass(frozen=True)
class Run:
    """A recorded run, and where the operator times of its model on its GPU are."""

    name: str
    engine: EngineRecord
    requests: list[Served]
    model: ModelSpec
    device: DeviceSpec
    times: Path
    collectives: Path | None

    @property
    def limits(self) -> Limits:
        """What one step and the KV cache of its engine hold."""
        return self.engine.limits(self.model, self.device)

    @property
    def setup(self) -> Setup:
        """How its engine ran the model."""
        asked = self.engine.engine_kwargs
        devices = max(asked.tensor_parallel_size, asked.data_parallel_size)
        measured = self.collectives if devices > 1 else None
        return Setup(
            model=self.model,
            device=self.device,
            tensor_parallel=asked.tensor_parallel_size,
            data_parallel=asked.data_parallel_size,
            expert_parallel=asked.enable_expert_parallel,
            graph_tokens=self.engine.graph_tokens,
            host_s=0.0 if self.engine.ahead else HOST_S,  # behind the device, or between its steps
            collective=open_all_reduce(measured, devices) if measured else None,
        )


def open_run(folder: Path, profiles: Path, gpu: str | None = None) -> Run:
    """Read a run, and find the profile that goes with it. Raises ValueError if something is missing."""
    engine = open_engine(folder)
    times = _times(engine, folder, profiles, gpu)
    hardware = open_description(times).hardware
    return Run(
        name="/".join(folder.resolve().parts[-2:]),
        engine=engine,
        requests=open_requests(folder),
        model=open_model(profiles / "models" / f"{engine.model.split('/')[-1]}.json"),
        device=_device(hardware),
        times=times,
        collectives=next(iter(profiles.glob(f"network/{hardware.lower()}*/all_reduce.csv")), None),
    )


def _times(engine: EngineRecord, folder: Path, profiles: Path, gpu: str | None) -> Path:
    """Find the profile of the run's GPU: the one asked for, or by the driver's name, or by the folder's.

    A run that says nothing of its GPU goes with the only profile of its model, if there is but one.
    """
    gpus = sorted(
        path.name for path in profiles.glob("serving/*") if (path / engine.model / VARIANT).is_dir()
    )
    if not gpus:
        raise ValueError(f"{profiles}: has no serving/GPU/{engine.model}/{VARIANT}, which {folder} needs")
    there = {name: profiles / "serving" / name / engine.model / VARIANT for name in gpus}
    driver = engine.hardware.device_name
    same = [name for name in gpus if driver == open_description(there[name]).gpu]
    wanted = gpu or next(iter(same), folder.resolve().parent.name)
    if len(gpus) == 1 and gpu is None and driver is None:
        wanted = gpus[0]
    if wanted not in there:
        raise ValueError(f"{folder}: no profile is of a GPU {wanted!r}; take one by --gpu: {', '.join(gpus)}")
    return there[wanted]


def _device(hardware: str) -> DeviceSpec:
    """Return the device of the catalogue whose name is spelled like this: RTX4090 is rtx-4090."""
    for name, device in DEVICES.items():
        if name.replace("-", "").startswith(hardware.replace("-", "").lower()):
            return device
    raise ValueError(f"the catalogue has no device like {hardware!r}; it has {', '.join(DEVICES)}")


def cost_model(quality: str, run: Run) -> Roofline | Profiled:
    """Return the cost model of this quality."""
    setup = run.setup
    if quality == "roofline":
        return setup.sheet
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

    def error(summed: Callable[[list[float]], float], name: str) -> float:
        found, true = ([getattr(each, name) for each in those] for those in (outcomes, run.requests))
        return summed([v for v in found if v is not None]) / summed([v for v in true if v is not None]) - 1

    return {
        "ttft_mean_error": error(mean, "ttft_s"),
        "tpot_mean_error": error(mean, "tpot_s"),
        "e2e_mean_error": error(mean, "e2e_s"),
        "e2e_p90_error": error(lambda values: percentile(values, 90), "e2e_s"),
        "e2e_p99_error": error(lambda values: percentile(values, 99), "e2e_s"),
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
    heads = ("run", "cost model", "TTFT mean", "TPOT mean", "E2E mean", "E2E p90", "E2E p99", "CPU s")
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * 6}"]
    for row in rows:
        errors = (row.ttft_mean_error, row.tpot_mean_error, row.e2e_mean_error)
        cells = [f"{error:+.1%}" for error in (*errors, row.e2e_p90_error, row.e2e_p99_error)]
        lines.append(f"| {row.run} | {row.cost} | {' | '.join(cells)} | {row.cpu_s:.2f} |".replace("%", " %"))
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
    parser.add_argument("--cost", nargs="+", choices=COSTS, default=COSTS)
    parser.add_argument("--gpu", help="the folder of PROFILES/serving to take, where a run does not tell")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, help="write the JSON to this file as well")
    parser.add_argument("--page", type=Path, help="make the tables of this page anew")
    asked = parser.parse_args()
    rows: list[Fidelity] = []
    try:
        for folder in asked.runs:
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
