"""How true the simulator is: recorded runs of real engines, replayed with each quality of cost model.

A run is a folder with `requests.jsonl` and `meta.json`, as LLMServingSim's benchmark of vLLM writes them. Its
requests go through the simulator at the moments they arrived at the engine, and what comes out is held
against what the engine did. Nothing is fitted to a run: prices come from operator times, measured apart, in
  PROFILES/serving/GPU/ORG/MODEL/bf16     tables of LLMServingSim
  PROFILES/models/MODEL.json              the model's config.json
  PROFILES/network/GPU.../all_reduce.csv  collectives as Vidur times them, where there are any

    python benchmarks/fidelity.py RUN... --profiles PROFILES [--cost grid ...] [--json] [--write FILE]

Errors are signed shares: -0.01 is a simulation that is 1 % faster than the engine was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

import msgspec

from millrace.control import Controller
from millrace.core.catalogue import DEVICES
from millrace.core.cost import CostModel
from millrace.core.cost.operators import graph_sizes
from millrace.core.cost.roofline import HOST_S
from millrace.core.device import DeviceSpec
from millrace.core.memory import kv_blocks
from millrace.core.model import ModelSpec
from millrace.core.outcome import Outcome
from millrace.core.profile import Setup
from millrace.core.profile.recording import Engine, Served
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
LARGEST_GRAPH_TOKENS = 512  # vLLM captures graphs up to twice the sequences, but no more than this


@dataclass(frozen=True)
class Fidelity:
    """How far the simulation of one run is off."""

    run: str
    cost: str
    ttft_mean_error: float
    tpot_mean_error: float
    e2e_mean_error: float
    e2e_p90_error: float
    e2e_p99_error: float
    requests: int
    cpu_s: float


@dataclass(frozen=True)
class Recorded:
    """A run, and where the operator times of its model on its GPU are."""

    name: str
    engine: Engine
    requests: list[Served]
    model: ModelSpec
    device: DeviceSpec
    times: Path
    network: Path


def open_run(folder: Path, profiles: Path, gpu: str | None = None) -> Recorded:
    """Read a run, and find the profile that goes with it. Raises ValueError if something is missing."""
    engine = open_engine(folder)
    times = _times(engine, folder, profiles, gpu)
    hardware = open_description(times).hardware
    return Recorded(
        name="/".join(folder.resolve().parts[-2:]),
        engine=engine,
        requests=open_requests(folder),
        model=open_model(profiles / "models" / f"{engine.model.split('/')[-1]}.json"),
        device=_device(hardware),
        times=times,
        network=profiles / "network",
    )


def _times(engine: Engine, folder: Path, profiles: Path, gpu: str | None) -> Path:
    """Find the profile of the run's GPU: the one asked for, or by the driver's name, or by the folder's."""
    there = {path.parts[-1 - engine.model.count("/") - 1 - 1]: path for path in _variants(engine, profiles)}
    if not there:
        raise ValueError(
            f"{profiles}: has no serving/GPU/{engine.model}/bf16, the operator times of {folder}"
        )
    driver = engine.hardware.device_name if engine.hardware else None
    named = [name for name, path in there.items() if driver and open_description(path).gpu == driver]
    wanted = gpu or next(iter(named), folder.resolve().parent.name)
    if wanted not in there:
        raise ValueError(f"{folder}: which GPU is {wanted!r}? Name one with --gpu: {', '.join(there)}")
    return there[wanted]


def _variants(engine: Engine, profiles: Path) -> Iterable[Path]:
    return (path for path in sorted(profiles.glob(f"serving/*/{engine.model}/bf16")) if path.is_dir())


def _device(hardware: str) -> DeviceSpec:
    """Return the device of the catalogue whose name is spelled like this: RTX4090 is rtx-4090."""
    for name, device in DEVICES.items():
        if name.replace("-", "").startswith(hardware.replace("-", "").lower()):
            return device
    raise ValueError(f"the catalogue has no device like {hardware!r}; it has {', '.join(DEVICES)}")


def limits(run: Recorded) -> Limits:
    """Return the engine's limits, as it was started with them or as it found them out by itself."""
    asked, resolved, cache = run.engine.engine_kwargs, run.engine.resolved_config, run.engine.kv_cache
    sequences = asked.max_num_seqs or resolved.scheduler_config.max_num_seqs
    tokens = asked.max_num_batched_tokens or resolved.scheduler_config.max_num_batched_tokens
    if sequences is None or tokens is None:
        raise ValueError(f"{run.name}: meta.json says neither max_num_seqs nor max_num_batched_tokens")
    found = Limits(
        step_tokens=tokens,
        sequences=sequences,
        block_tokens=cache.block_size,
        context_tokens=asked.max_model_len or resolved.model_config.max_model_len or run.model.context_tokens,
        prefix_caching=cache.enable_prefix_caching,
    )
    blocks = cache.num_gpu_blocks or _fitting_blocks(run, found)
    return msgspec.structs.replace(found, kv_blocks=blocks)


def _fitting_blocks(run: Recorded, found: Limits) -> int:
    """Reckon the KV blocks of a rank, which holds only its share of the experts."""
    asked = run.engine.engine_kwargs
    mine = msgspec.structs.replace(run.model, experts=run.model.experts // asked.data_parallel_size)
    return kv_blocks(mine, run.device, asked.tensor_parallel_size, found)


def ahead(engine: Engine) -> bool:
    """Whether the engine scheduled asynchronously, which is vLLM's default since 0.14."""
    said = engine.resolved_config.scheduler_config.async_scheduling
    if said is not None:
        return said
    return tuple(map(int, engine.vllm_version.split(".")[:2])) >= (0, 14)


def setup(run: Recorded, found: Limits) -> Setup:
    """Return how the engine ran its model."""
    asked, resolved = run.engine.engine_kwargs, run.engine.resolved_config
    captured = resolved.compilation_config.cudagraph_capture_sizes
    sizes = captured or graph_sizes(min(2 * found.sequences, LARGEST_GRAPH_TOKENS))
    measured = [run.network / name for name in _network_names(run)]
    devices = max(asked.tensor_parallel_size, asked.data_parallel_size)
    return Setup(
        model=run.model,
        device=run.device,
        tensor_parallel=asked.tensor_parallel_size,
        data_parallel=asked.data_parallel_size,
        expert_parallel=asked.enable_expert_parallel,
        graph_tokens=() if resolved.model_config.enforce_eager else tuple(sizes),
        host_s=0.0 if ahead(run.engine) else HOST_S,
        collective=open_all_reduce(measured[0], devices) if measured and devices > 1 else None,
    )


def _network_names(run: Recorded) -> list[str]:
    gpu = run.device.name.split("-")[0] if run.device.name[0] in "ah" else run.device.name.replace("-", "")
    return [
        f"{path.parent.name}/all_reduce.csv" for path in sorted(run.network.glob(f"{gpu}*/all_reduce.csv"))
    ]


def cost_model(quality: str, run: Recorded, of: Setup) -> CostModel:
    """Return the cost model of this quality."""
    if quality == "roofline":
        return of.sheet
    tables = open_serving(run.times, run.model, of.tensor_parallel)
    return tables.fitted(of) if quality == "fit" else tables.grid(of)


def replay(run: Recorded, cost: CostModel, found: Limits) -> tuple[list[Outcome], float]:
    """Serve the run's requests in virtual time, first come first served; return the seconds of CPU, too."""
    ranks = run.engine.engine_kwargs.data_parallel_size
    together = ranks > 1 and run.model.experts > 0
    spec = ReplicaSpec(models=(run.engine.model,), limits=found)
    fleet = [
        ServerSpec(id=f"r{n}", spec=spec, cost=cost, ahead=ahead(run.engine), ranks=ranks if together else 1)
        for n in range(1 if together else ranks)
    ]
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    began_s = process_time()
    done = simulate(_jobs(run, found), fleet, controller, load("batching", "split_fuse"))
    return done.outcomes, process_time() - began_s


def _jobs(run: Recorded, found: Limits) -> list[Job]:
    """No two requests share a block, but a preempted one may find its own again, prompt and answer."""
    jobs = []
    for index, each in enumerate(run.requests):
        blocks = (each.prompt_tokens + each.output_tokens) // found.block_tokens
        request = Request(
            id=each.id,
            model=run.engine.model,
            prompt_tokens=each.prompt_tokens,
            max_tokens=each.output_tokens,
        )
        jobs.append(
            Job(
                t_s=each.arrived_s,
                request=request,
                prompt_tokens=each.prompt_tokens,
                output_tokens=each.output_tokens,
                blocks=tuple(index << 32 | block for block in range(blocks)),
                block_tokens=found.block_tokens,
            )
        )
    return jobs


def compare(run: Recorded, outcomes: Sequence[Outcome]) -> dict[str, float]:
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


def measure(run: Recorded, qualities: Sequence[str]) -> list[Fidelity]:
    """Replay a run with each quality of cost model."""
    found, rows = limits(run), []
    for quality in qualities:
        outcomes, cpu_s = replay(run, cost_model(quality, run, setup(run, found)), found)
        errors = compare(run, outcomes)
        rows.append(Fidelity(run.name, quality, **errors, requests=len(outcomes), cpu_s=round(cpu_s, 3)))
    return rows


def table(rows: Sequence[Fidelity]) -> str:
    """Return the rows as a table in Markdown."""
    heads = ("run", "cost model", "TTFT mean", "TPOT mean", "E2E mean", "E2E p90", "E2E p99", "CPU s")
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * 6}"]
    for row in rows:
        errors = [value for name, value in asdict(row).items() if name.endswith("_error")]
        cells = [f"{error:+.1%}".replace("%", " %") for error in errors]
        lines.append(f"| {row.run} | {row.cost} | {' | '.join(cells)} | {row.cpu_s:.2f} |")
    return "\n".join(lines)


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
    asked = parser.parse_args()
    rows: list[Fidelity] = []
    try:
        for folder in asked.runs:
            rows += measure(open_run(folder, asked.profiles, asked.gpu), asked.cost)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = json.dumps({"runs": [asdict(row) for row in rows]}, indent=2)
    print(text if asked.json else table(rows))
    if asked.write:
        asked.write.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
