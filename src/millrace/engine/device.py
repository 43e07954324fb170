"""Where an engine computes: what `--device` may say on this machine."""

from __future__ import annotations

import re

import torch


def checked_device(name: str) -> str:
    """The name, if there is such a device; ValueError says which there are."""
    if name == "cpu":
        return name
    wanted = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", name)
    if wanted is None:
        raise ValueError(f"--device {name}: no such kind of device; choose cpu, cuda or cuda:N")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not there:
        why = "torch sees no CUDA device" if torch.version.cuda else "this build of torch has no CUDA"
        raise ValueError(f"--device {name}: {why} ({torch.__version__}); choose --device cpu")
    if int(wanted[1] or 0) >= there:
        names = ", ".join(f"cuda:{i}" for i in range(there))
        raise ValueError(f"--device {name}: not here; there is {names}")
    return name
