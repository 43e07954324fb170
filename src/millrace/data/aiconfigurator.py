"""Opens the operator tables of an installed `aiconfigurator-core` (NVIDIA, Apache-2.0); it copies none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from millrace.core.cost import Collective, Profiled
from millrace.core.device import DeviceSpec
from millrace.core.profile import Setup, aiconfigurator

# What its tables call the devices of the catalogue.
SYSTEMS = {
    "a100-80g": "a100_sxm",
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "l40s": "l40s",
    "rtx-pro-6000": "rtx_pro_6000_server",
}
ENGINE = "vllm"
_INSTALL = "install them: pip install 'millrace[aiconfigurator]'"

Row = dict[str, Any]


def find_tables() -> Path:
    """Return where the package keeps its tables. Raises ValueError, with the fix, if it is not installed."""
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the operator tables of AIConfigurator are not here; {_INSTALL}")
    return Path(next(iter(spec.submodule_search_locations))) / "systems" / "data"


def open_operators(setup: Setup, tables: Path | None = None, *, engine: str = ENGINE) -> Profiled:
    """Price steps by the newest tables of this engine on the setup's device; `tables` is another folder.

    Weights, activations and cache are bf16. Raises ValueError if the package, a table, or the model's shape
    in it is missing.
    """
    model, degree = setup.model, setup.tensor_parallel
    if model.latent:
        raise ValueError(f"{model.name} has latent attention, which is not read from these tables")
    folder = _folder(setup.device, tables)
    heads = {
        "num_heads": model.heads // degree,
        "num_key_value_heads": max(1, model.kv_heads // degree),
        "head_dim": model.head_dim,
        "kv_cache_dtype": "bfloat16",
        "window_size": 0,
    }

    def of(family: str, table: str, wanted: Mapping[str, object]) -> list[Row]:
        return read_rows(_newest(folder / family / engine, f"{table}_perf.parquet"), wanted)

    return aiconfigurator.profiled(
        setup,
        products=of("gemm", "gemm", {"gemm_dtype": "bfloat16"}),
        prompts=of("attention", "context_attention", heads),
        decodes=of("attention", "generation_attention", heads),
        experts=of("moe", "moe", _routed(setup)) if model.experts else (),
    )


def open_collective(device: DeviceSpec, devices: int, tables: Path | None = None) -> Collective:
    """Fit to NCCL between so many of these devices, where it was timed. Raises ValueError if it was not."""
    path = _newest(_folder(device, tables) / "comm" / "nccl", "nccl_perf.parquet")

    def of(operation: str) -> list[Row]:
        return read_rows(path, {"op_name": operation, "num_gpus": devices, "nccl_dtype": "half"})

    return aiconfigurator.collective(of("all_reduce"), of("all_gather") + of("reduce_scatter"), devices)


def read_rows(path: Path, wanted: Mapping[str, object]) -> list[Row]:
    """Read the rows of a parquet file with these values. Raises ValueError without pyarrow or a column."""
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(f"{path} is a parquet file, and pyarrow is not here; {_INSTALL}") from None
    filters = [(name, "=", value) for name, value in wanted.items()] or None
    try:
        rows: list[Row] = parquet.read_table(path, filters=filters).to_pylist()
    except ValueError as error:
        raise ValueError(f"{path}: {error}; is it of another version of aiconfigurator-core?") from None
    return rows


def _routed(setup: Setup) -> dict[str, object]:
    model, ranks = setup.model, setup.tensor_parallel * setup.data_parallel
    return {
        "moe_dtype": "bfloat16",
        "hidden_size": model.hidden,
        "inter_size": model.expert_ffn,
        "topk": model.active_experts,
        "num_experts": model.experts,
        "moe_tp_size": 1 if setup.expert_parallel else ranks,
        "moe_ep_size": ranks if setup.expert_parallel else 1,
        "distribution": "balanced",
    }


def _folder(device: DeviceSpec, tables: Path | None) -> Path:
    if device.name not in SYSTEMS:
        raise ValueError(
            f"AIConfigurator has no tables of {device.name}; it has those of {', '.join(SYSTEMS)}"
        )
    return (tables or find_tables()) / SYSTEMS[device.name]


def _newest(folder: Path, name: str) -> Path:
    """Return the file in the folder of the highest version that has it."""
    found = [path / name for path in folder.glob("*") if (path / name).is_file()]
    if not found:
        raise ValueError(f"{folder}/VERSION/{name} is not there; is aiconfigurator-core complete?")
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)])
