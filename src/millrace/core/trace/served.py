"""Event logs as traces: what a gateway served, or a simulation, is traffic that can be learned from again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from millrace.core.event import Arrived, Event, Finished
from millrace.core.request import Request
from millrace.core.trace.record import TraceRecord
from millrace.core.trace.rows import json_rows


class _Line(Struct):
    event: Event


_LINE = msgspec.json.Decoder(_Line)


def recognises(first_line: str) -> bool:
    """Whether this is the header of an event log."""
    return first_line.startswith("{") and '"millrace.log/' in first_line


def read(lines: Iterable[str]) -> Iterator[TraceRecord]:
    """Yield the answered requests in the order of their arrival, once the whole log was read.

    Those without an end, or whose engine did not say how many tokens its answer had, are left out.
    """
    arrived: dict[str, Arrived] = {}
    ended: list[tuple[Arrived, Finished]] = []
    numbered = iter(lines)
    next(numbered, "")
    for _, line in json_rows(numbered, _LINE, first=2):
        event = line.event
        if isinstance(event, Arrived):
            arrived[event.request.id] = event
        elif isinstance(event, Finished) and event.request_id in arrived:
            ended.append((arrived.pop(event.request_id), event))
    ended = [(came, end) for came, end in ended if end.output_tokens is not None]
    ended.sort(key=lambda pair: pair[0].now_s)
    begin_s = ended[0][0].now_s if ended else 0.0
    for came, end in ended:
        yield _record(came.request, end, t_s=came.now_s - begin_s, elapsed_s=end.now_s - came.now_s)


def _record(request: Request, end: Finished, *, t_s: float, elapsed_s: float) -> TraceRecord:
    return TraceRecord(
        id=request.id,
        t_s=t_s,
        input_tokens=request.prompt_tokens,
        output_tokens=end.output_tokens or 0,
        session=request.session,
        model=request.model,
        tenant=request.tenant,
        priority=request.priority,
        max_tokens=request.max_tokens,
        block_tokens=request.block_tokens,
        blocks=request.blocks,
        slo=request.slo,
        adapter=request.adapter,
        elapsed_s=elapsed_s,
        failed=not end.output_tokens,
        lexical=request.lexical,
    )
