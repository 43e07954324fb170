"""Opens traces and calibrations: those that Millrace ships by name, all others by path."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from millrace.core.cost import Linear
from millrace.core.suggest import unknown
from millrace.core.trace import TraceError, TraceRecord, read_trace

_FOLDER = Path(__file__).parent
TRACES = {
    "azure_conv_2023": _FOLDER / "traces" / "azure_conv_2023.csv.gz",
    "mooncake_conversation": _FOLDER / "traces" / "mooncake_conversation.jsonl.gz",
}


def open_trace(
    name_or_path: str | Path, *, spread: bool = True, drop_failed: bool = False, block_tokens: int = 512
) -> Iterator[TraceRecord]:
    """Yield the records of a shipped trace or of a file in any known format, compressed by gzip or not.

    The options are those of `core.trace.read_trace`. The file is opened when the first record is asked for,
    and closed after the last. Raises ValueError at once for a name that is neither shipped nor a file, and
    while reading for a file that cannot be read, naming it.
    """
    path = TRACES.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise _not_found("trace", str(name_or_path), path, TRACES)
    return _records(path, spread=spread, drop_failed=drop_failed, block_tokens=block_tokens)


def calibrations() -> dict[str, Path]:
    """Return the shipped calibrations by name, `MODEL-DEVICE`."""
    return {path.stem: path for path in sorted((_FOLDER / "calibration").glob("*.json"))}


def open_calibration(name_or_path: str | Path) -> Linear:
    """Return a shipped calibration, or one from a file. Raises ValueError if it cannot be read."""
    shipped = calibrations()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise _not_found("calibration", str(name_or_path), path, shipped)
    try:
        return Linear.from_dict(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _not_found(what: str, name: str, path: Path, shipped: dict[str, Path]) -> ValueError:
    if path.is_dir():
        return ValueError(f"{name} is a folder; name a file in it")
    if path.suffix or len(path.parts) > 1:
        return ValueError(
            f"there is no file {name}; give the path of a {what}, or one of {', '.join(shipped)}"
        )
    return unknown(what, name, shipped)


def _records(path: Path, *, spread: bool, drop_failed: bool, block_tokens: int) -> Iterator[TraceRecord]:
    try:
        opener = gzip.open if _is_gzip(path) else open
        with opener(path, "rt", encoding="utf-8", newline="") as lines:
            yield from read_trace(lines, spread=spread, drop_failed=drop_failed, block_tokens=block_tokens)
    except TraceError as error:
        raise ValueError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"
