"""Conversations that a trace does not name, found by prompts that begin with all of an earlier one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from msgspec.structs import replace

from millrace.core.trace import TraceRecord

# A prompt that goes on in more ways than this is what many conversations begin with, and none of their turns.
# In Mooncake's conversation trace it makes no difference whether this is 1 or 8.
MOST_BRANCHES = 4


def find_sessions(records: Iterable[TraceRecord]) -> Iterator[TraceRecord]:
    """Yield the records by time; those that follow another, or are followed, name session, turn and parent.

    A request follows the latest one whose full prompt blocks are all at its beginning, and whose prompt and
    answer fit into its prompt. So prompts of less than a block, and turns that changed what was said before,
    begin conversations of their own. Records that name a session or parent already stay as they are.
    """
    ordered = sorted(records, key=lambda record: record.t_s)
    after = _continuations(ordered)
    parents: dict[str, TraceRecord] = {}
    ending: dict[int, TraceRecord] = {}
    for record in ordered:
        if not record.blocks or record.failed or record.session or record.parent:
            continue
        before = next((b for b in _candidates(record, ending, after) if _fits(b, record)), None)
        if before:
            parents[record.id] = before
        ending[record.blocks[-1]] = record
    return _named(ordered, parents)


def _continuations(records: Iterable[TraceRecord]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for record in records:
        for block, following in pairwise(record.blocks):
            found[block].add(following)
    return found


def _candidates(
    record: TraceRecord, ending: dict[int, TraceRecord], after: dict[int, set[int]]
) -> Iterator[TraceRecord]:
    """Yield those whose last full block is in this prompt and is no common beginning, longest first."""
    for block in reversed(record.blocks):
        if block in ending and len(after[block]) <= MOST_BRANCHES:
            yield ending[block]


def _fits(before: TraceRecord, record: TraceRecord) -> bool:
    return before.input_tokens + before.output_tokens <= record.input_tokens


def _named(ordered: Iterable[TraceRecord], parents: dict[str, TraceRecord]) -> Iterator[TraceRecord]:
    followed = {parent.id for parent in parents.values()}
    place: dict[str, tuple[str, int]] = {}
    for record in ordered:
        parent = parents.get(record.id)
        if parent is None and record.id not in followed:
            yield record
            continue
        session, turn = place[parent.id] if parent else (record.id, -1)
        place[record.id] = session, turn + 1
        yield replace(record, session=session, turn=turn + 1, parent=parent.id if parent else None)
