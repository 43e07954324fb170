"""When, where and with which versions a report was made."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import millrace
from millrace.bench.report.model import Origin

_PACKAGES = ("aiohttp", "msgspec", "torch", "uvloop")


def origin(argv: Sequence[str], *, packages: Iterable[str] = _PACKAGES) -> Origin:
    """Describe this process and machine; `argv` is the command that makes the report again."""
    return Origin(
        command=shlex.join(argv),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            "millrace": millrace.__version__,
            "python": platform.python_version(),
            **{name: version for name in packages if (version := _version(name))},
        },
        host={
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": str(_cores()),
            "memory": f"{_memory_bytes() / 2**30:.0f} GiB",
        },
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's own name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
