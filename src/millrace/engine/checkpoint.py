"""Reading a checkpoint's tensors from one safetensors file or from many with an index."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class Checkpoint:
    """The tensors of a checkpoint folder, read one at a time; use it as a context manager."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: str = "cpu") -> None:
        self._dtype, self._device = dtype, device
        self._stack = ExitStack()
        self._index = _index(folder)
        self._open: dict[Path, Any] = {}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor in the engine's dtype, on its device; ValueError if missing or of another shape."""
        if name not in self._index:
            raise ValueError(
                f"the checkpoint has no tensor {name!r}; is it complete and of the family it claims?"
            )
        path = self._index[name]
        tensor: Tensor = self._file(path).get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{path}: {name} has shape {tuple(tensor.shape)}, config.json implies {shape}")
        return tensor.to(self._device, self._dtype)

    def maybe(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """Like `tensor`, None if the checkpoint has none of that name."""
        return self.tensor(name, shape) if name in self else None

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = self._stack.enter_context(_open(path))
        return self._open[path]


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); download it again") from error


def _index(folder: Path) -> dict[str, Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _sharded(folder, index)
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ValueError(
            f"{folder}: neither model.safetensors nor model.safetensors.index.json; convert it to safetensors"
        )
    with _open(single) as file:
        return dict.fromkeys(file.keys(), single)


def _sharded(folder: Path, index: Path) -> dict[str, Path]:
    try:
        shards = {name: folder / file for name, file in json.loads(index.read_bytes())["weight_map"].items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{index}: not an index of shards ({error!r}); download it again") from error
    for shard in sorted(set(shards.values())):
        if not shard.is_file():
            raise ValueError(f"{shard}: named in {index.name} but not found; download it again")
    return shards
