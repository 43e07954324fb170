"""Mooncake's traces (kvcache-ai/Mooncake, FAST'25): JSON lines with chained ids of 512-token prompt blocks.

The conversation trace's stamps are rounded to 3 s, which makes bursts of about ten requests that never
happened. A reader that finds such rounding therefore spreads each bucket's requests over its 3 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice

import msgspec
from msgspec import Struct

from millrace.core.draw import draw
from millrace.core.trace.record import Count, TraceError, TraceRecord
from millrace.core.trace.rows import json_rows

BLOCK_TOKENS = 512
BUCKET_MS = 3000
_LOOKED_AT = 1000
_NEAR_MS = 5


class _Row(Struct):
    timestamp: float
    input_length: Count
    output_length: Count
    hash_ids: tuple[int, ...] | None = None
    session_id: str | None = None


_DECODER = msgspec.json.Decoder(_Row)


def recognises(first_line: str) -> bool:
    """Whether this is such a line."""
    return first_line.startswith("{") and '"input_length"' in first_line


def read(
    lines: Iterable[str], *, block_tokens: int = BLOCK_TOKENS, spread: bool = True
) -> Iterator[TraceRecord]:
    """Yield a record a row. Full blocks become `blocks`; the id of a last, partial one is kept apart.

    With `spread`, stamps rounded to 3 s are drawn uniformly from their bucket, in order and the same
    in every reading; whether they are rounded is judged by the first 1,000 rows, which are read at once.
    """
    records = _records(lines, block_tokens)
    if not spread:
        return records
    head = list(islice(records, _LOOKED_AT))
    every = chain(head, records)
    return _spread(every) if _is_rounded(head) else every


def write(records: Iterable[TraceRecord]) -> Iterator[str]:
    """Yield the lines of a trace, times in ms; a partial last block without an id gets one of its own.

    Raises ValueError for a record whose prompt is longer than its blocks say.
    """
    for index, record in enumerate(records):
        stamp_ms = round(record.t_s * 1e3, 6)
        row: dict[str, object] = {
            "timestamp": int(stamp_ms) if stamp_ms.is_integer() else stamp_ms,
            "input_length": record.input_tokens,
            "output_length": record.output_tokens,
        }
        if record.blocks or record.tail_block is not None:
            row["hash_ids"] = _ids(index, record)
        if record.session is not None:
            row["session_id"] = record.session
        yield msgspec.json.encode(row).decode()


def _records(lines: Iterable[str], block_tokens: int) -> Iterator[TraceRecord]:
    for index, (line, row) in enumerate(json_rows(lines, _DECODER)):
        ids = _checked_ids(line, row, block_tokens)
        full = row.input_length // block_tokens
        yield TraceRecord(
            id=f"mooncake-{index}",
            t_s=row.timestamp / 1e3,
            input_tokens=row.input_length,
            output_tokens=row.output_length,
            session=row.session_id,
            block_tokens=block_tokens,
            blocks=ids[:full],
            tail_block=ids[full] if len(ids) > full else None,
            failed=row.output_length == 0,
        )


def _checked_ids(line: int, row: _Row, block_tokens: int) -> tuple[int, ...]:
    if row.hash_ids is None:
        return ()
    blocks = -(-row.input_length // block_tokens)
    if len(row.hash_ids) != blocks:
        problem = (
            f"{len(row.hash_ids)} ids for a prompt of {row.input_length} tokens, "
            f"which has {blocks} blocks of {block_tokens}"
        )
        raise TraceError(line, "hash_ids", problem, "correct the row, or say what block_tokens the trace has")
    return row.hash_ids


def _is_rounded(head: list[TraceRecord]) -> bool:
    """Whether nearly all stamps are within 5 ms of whole buckets, with several requests in some."""
    near = sum(abs(r.t_s * 1e3 - _bucket(r) * BUCKET_MS) <= _NEAR_MS for r in head)
    return near >= 0.95 * len(head) and len({_bucket(r) for r in head}) < len(head)


def _bucket(record: TraceRecord) -> int:
    return round(record.t_s * 1e3 / BUCKET_MS)


def _spread(records: Iterable[TraceRecord]) -> Iterator[TraceRecord]:
    for bucket, group in groupby(records, _bucket):
        rows = list(group)
        shares = sorted(draw("mooncake", row.id) / 2**64 for row in rows)
        for row, share in zip(rows, shares, strict=True):
            yield msgspec.structs.replace(row, t_s=(bucket + share) * BUCKET_MS / 1e3)


def _ids(index: int, record: TraceRecord) -> tuple[int, ...]:
    full, rest = divmod(record.input_tokens, record.block_tokens)
    if len(record.blocks) != full:
        raise ValueError(
            f"blocks: record {record.id} has {len(record.blocks)} ids for {full} full blocks "
            f"of {record.block_tokens} tokens; give every full block an id"
        )
    if not rest:
        return record.blocks
    # Negative ids are the writer's own: no prompt block of another record can have them.
    return (*record.blocks, -1 - index if record.tail_block is None else record.tail_block)
