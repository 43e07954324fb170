"""Opens folders of operator times, and of recorded runs; what they hold is read in `core.profile`."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from millrace.core.cost import Collective, Profiled, Roofline
from millrace.core.cost.profiled import SCHEMA
from millrace.core.model import ModelSpec
from millrace.core.model_config import from_config
from millrace.core.profile import Setup, Tables, recording, serving, vidur
from millrace.core.profile.settings_file import read_settings

T = TypeVar("T")


def open_serving(folder: Path, model: ModelSpec, tensor_parallel: int = 1) -> Tables:
    """Read a folder of LLMServingSim, `GPU/ORG/MODEL/bf16`: its `meta.yaml`, and the tables of `tpN`.

    Any file may be compressed, `dense.csv.gz`. Raises ValueError, naming the file that is missing or wrong.
    """
    description = open_description(folder)
    tables = folder / f"tp{tensor_parallel}"
    if not tables.is_dir():
        there = ", ".join(sorted(path.name for path in folder.glob("tp*"))) or "no folder tpN at all"
        raise ValueError(f"{folder}: has no times for tensor_parallel {tensor_parallel}; there is {there}")
    experts = None
    if model.experts:
        # Timed on one device only: how several share the experts is a matter of the setup.
        at = tables if _found(tables / "moe.csv") else folder / "tp1"
        experts = _read(at / "moe.csv", lambda lines: serving.read_experts(lines, model))
    skewed = description.skew_fit.enabled and tensor_parallel in description.skew_fit.per_tp
    return Tables(
        dense=_read(tables / "dense.csv", lambda lines: serving.read_dense(lines, model)),
        head=_read(tables / "per_sequence.csv", serving.read_head),
        attention=_read(tables / "attention.csv", lambda lines: serving.read_attention(lines, model)),
        experts=experts,
        skew=_read(
            tables / "skew_fit.csv", lambda lines: serving.read_skew(description, lines, tensor_parallel)
        )
        if skewed
        else None,
    )


def open_description(folder: Path) -> serving.Description:
    """Read the `meta.yaml` of a folder of LLMServingSim. Raises ValueError if it is missing or wrong."""
    return _read(folder / "meta.yaml", lambda lines: serving.read_description(read_settings(lines)))


def open_layers(path: Path, setup: Setup) -> Profiled:
    """Read a `mlp.csv` of Vidur; attention, LM head and sampler are the data sheet's.

    Raises ValueError if it cannot be read, or has no times for the setup's tensor parallelism.
    """
    dense = _read(path, lambda lines: vidur.read_layers(lines, setup.model, setup.tensor_parallel))
    return vidur.profiled(dense, setup)


def says_profile(path: Path) -> bool:
    """Whether a file says of itself that it is one that `Profiled.to_dict` was written to."""
    return path.is_file() and _read(path, lambda lines: f'"{SCHEMA}"' in "".join(lines))


def open_fitted(path: Path, *, sheet: Roofline | None = None) -> Profiled:
    """Read a file of what `Profiled.to_dict` returned. Raises ValueError if it cannot be read."""
    return _read(path, lambda lines: Profiled.from_dict(_object("".join(lines)), sheet=sheet))


def open_all_reduce(path: Path, devices: int) -> Collective:
    """Read an `all_reduce.csv` of Vidur. Raises ValueError if it cannot be read, or has no such times."""
    return _read(path, lambda lines: vidur.read_all_reduce(lines, devices))


def open_model(path: Path) -> ModelSpec:
    """Read a `config.json`. Raises ValueError if it cannot be read or its kind of model is not known."""
    return _read(path, lambda lines: from_config(_config("".join(lines)), name=path.name.split(".json")[0]))


def open_engine(folder: Path) -> recording.EngineRecord:
    """Read how the engine of a recorded run was set up. Raises ValueError if `meta.json` cannot be read."""
    return _read(folder / "meta.json", lambda lines: recording.read_engine("".join(lines)))


def open_requests(folder: Path) -> list[recording.Served]:
    """Read the requests of a recorded run, in order of arrival. Raises ValueError if they cannot be read."""
    return _read(folder / "requests.jsonl", recording.read_requests)


def _config(text: str) -> dict[str, object]:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise ValueError(f"is not a config.json: {error}") from None


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ValueError(f"is not a profile: {error}") from None


def _found(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _read(path: Path, read: Callable[[Iterable[str]], T]) -> T:
    """Give the lines of the file, or of its compressed twin, to `read`; errors name the file."""
    found = _found(path)
    if not found:
        raise ValueError(f"there is no file {path}, nor {path.name}.gz; what it holds is needed here")
    try:
        with _lines(found) as lines:
            return read(lines)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{found}: {error}") from None


@contextmanager
def _lines(path: Path) -> Iterator[Iterable[str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as lines:
        yield lines
