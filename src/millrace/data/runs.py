"""Finds what a recorded run of a real engine is to be held against: model, device, operator times.

The run is a folder as LLMServingSim's benchmark of vLLM writes them. A folder of profiles has
  serving/GPU/ORG/MODEL/bf16     tables of LLMServingSim; or fp8, bf16-kvfp8, as the run's dtypes say
  models/MODEL.json              the model's config.json
  network/GPU.../all_reduce.csv  collectives as Vidur times them, where there are any
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from millrace.core.catalogue import DEVICES, MODELS
from millrace.core.cost.roofline import HOST_S
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec
from millrace.core.profile import Setup
from millrace.core.profile.recording import EngineRecord, Served
from millrace.core.replica import Limits
from millrace.data.profiles import (
    open_all_reduce,
    open_description,
    open_engine,
    open_model,
    open_requests,
)


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
        """What one step and the KV cache of its engine hold; a pipeline has a step in every stage."""
        found = self.engine.limits(self.model, self.device)
        return msgspec.structs.replace(found, step_tokens=found.step_tokens * self.stages)

    @property
    def stages(self) -> int:
        """Stages that the layers were split over."""
        return self.engine.engine_kwargs.pipeline_parallel_size

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


def runs_in(folder: Path) -> list[Path]:
    """Return the folder if it is a run, else the runs anywhere below it. Raises ValueError if it has none."""
    found = sorted({path.parent for path in folder.rglob("meta.json*")})
    if folder.is_dir() and not found:
        raise ValueError(f"{folder} holds no run: a run is a folder with meta.json and requests.jsonl")
    return found or [folder]


def open_run(folder: Path, profiles: Path, gpu: str | None = None) -> Run:
    """Read a run, and find the profile that goes with it; `profiles` may also be their folder `serving`.

    Raises ValueError if something is missing.
    """
    if profiles.name == "serving" and not (profiles / "serving").is_dir():
        profiles = profiles.parent
    engine = open_engine(folder)
    times = _times(engine, folder, profiles, gpu)
    hardware = open_description(times).hardware
    return Run(
        name="/".join(folder.resolve().parts[-2:]),
        engine=engine,
        requests=open_requests(folder),
        model=engine.stored(_model(engine, profiles)),
        device=_device(hardware),
        times=times,
        collectives=next(iter(profiles.glob(f"network/{hardware.lower()}*/all_reduce.csv")), None),
    )


def _model(engine: EngineRecord, profiles: Path) -> ModelSpec:
    name = engine.model.split("/")[-1]
    path = profiles / "models" / f"{name}.json"
    if path.is_file():
        return open_model(path)
    if name.lower() in MODELS:
        return MODELS[name.lower()]
    raise ValueError(f"there is no {path}: save the config.json of {engine.model} under that name")


def _times(engine: EngineRecord, folder: Path, profiles: Path, gpu: str | None) -> Path:
    """Find the profile of the run's GPU: the one asked for, or by the driver's name, or by the folder's.

    A run that says nothing of its GPU goes with the only profile of its model, if there is but one.
    """
    variant = engine.variant
    gpus = sorted(
        path.name for path in profiles.glob("serving/*") if (path / engine.model / variant).is_dir()
    )
    if not gpus:
        raise ValueError(
            f"{profiles}: has no serving/GPU/{engine.model}/{variant}, which {folder} needs; "
            f"{_there(profiles, engine)}"
        )
    there = {name: profiles / "serving" / name / engine.model / variant for name in gpus}
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


def _there(profiles: Path, engine: EngineRecord) -> str:
    found = [path.relative_to(profiles) for path in profiles.glob(f"serving/*/{engine.model}/*")]
    return f"there is {', '.join(map(str, sorted(found))) or 'nothing of this model'}"
