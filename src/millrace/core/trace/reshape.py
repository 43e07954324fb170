"""Arithmetic on traces: shorter, denser, longer. Every function is lazy and keeps the records' order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from math import ceil, isfinite

from msgspec.structs import replace

from millrace.core.trace.record import TraceRecord


def first(records: Iterable[TraceRecord], count: int) -> Iterator[TraceRecord]:
    """Keep the first `count` requests."""
    if count < 0:
        raise ValueError(f"count is {count}; it must not be negative")
    return islice(records, count)


def window(records: Iterable[TraceRecord], start_s: float, end_s: float) -> Iterator[TraceRecord]:
    """Keep what came in [start_s, end_s), and count time from `start_s`."""
    if not start_s < end_s:
        raise ValueError(f"end_s is {end_s}; it must be after start_s, {start_s}")
    return (replace(r, t_s=r.t_s - start_s) for r in records if start_s <= r.t_s < end_s)


def scale_rate(records: Iterable[TraceRecord], factor: float) -> Iterator[TraceRecord]:
    """Let requests come `factor` times as fast: all gaps shrink alike, so burstiness stays."""
    _require_positive("factor", factor)
    return (replace(r, t_s=r.t_s / factor) for r in records)


def scale_lengths(
    records: Iterable[TraceRecord], *, input_factor: float = 1.0, output_factor: float = 1.0
) -> Iterator[TraceRecord]:
    """Make prompts and answers longer or shorter, at least 1 token each; an answer of none stays none.

    The block size stays, and prompts that shared a share of their tokens go on sharing it, rounded down
    to whole blocks. Ids of partial blocks are dropped.
    """
    _require_positive("input_factor", input_factor)
    _require_positive("output_factor", output_factor)
    return (_longer(record, input_factor, output_factor) for record in records)


def _require_positive(name: str, factor: float) -> None:
    if not (isfinite(factor) and factor > 0):
        raise ValueError(f"{name} is {factor}; it must be a number above 0")


def _longer(record: TraceRecord, input_factor: float, output_factor: float) -> TraceRecord:
    input_tokens = _scaled(record.input_tokens, input_factor)
    limit = record.max_tokens
    return replace(
        record,
        input_tokens=input_tokens,
        output_tokens=_scaled(record.output_tokens, output_factor),
        max_tokens=None if limit is None else _scaled(limit, output_factor),
        blocks=_stretched(record.blocks, input_factor, input_tokens // record.block_tokens),
        tail_block=record.tail_block if input_factor == 1 else None,
    )


def _scaled(tokens: int, factor: float) -> int:
    return max(1, round(tokens * factor)) if tokens else 0


def _stretched(blocks: tuple[int, ...], factor: float, count: int) -> tuple[int, ...]:
    """Name at most `count` blocks of the scaled prompt after the old ones that decide their content.

    New block j ends where old block ceil((j + 1) / factor) - 1 does or before, and an old id stands for
    everything in front of it as well, so equal new ids mean equal scaled prefixes. Several new blocks in
    one old block are told apart by their place in it.
    """
    parts = ceil(factor)
    ids: list[int] = []
    last, place = -1, 0
    for j in range(count):
        old = ceil((j + 1) / factor) - 1
        if old >= len(blocks):
            break
        place = place + 1 if old == last else 0
        last = old
        ids.append(blocks[old] * parts + place)
    return tuple(ids)
