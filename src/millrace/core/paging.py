"""Tensors kept in a remote memory and fetched shortly before they are used, step after step.

FengHuang (Li et al., arXiv:2511.10753) pages tensors from a memory that all devices share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from millrace.core.memory_tiers import Tier

_CYCLES = 3


class Page(Struct, frozen=True, kw_only=True):
    """What one operation of a step needs, and the seconds that the operation takes once it is there.

    A page that is fetched is written to local memory, which slows the operation by `write_s`.
    """

    size_bytes: float
    use_s: float
    write_s: float = 0.0


class Visit(Struct, frozen=True):
    """One use of a page: when its fetch began and ended (its use's start if it never leaves), and the use."""

    page: int
    fetch_s: float
    arrived_s: float
    began_s: float
    ended_s: float


class Paging(Struct, frozen=True, kw_only=True):
    """A steady state: which pages stay, how large the buffer for the others is, and what a step takes."""

    resident: frozenset[int]
    buffer_bytes: float
    local_bytes: float
    step_s: float
    visits: tuple[Visit, ...]


def spread(pages: int, streamed: int) -> frozenset[int]:
    """Return the pages that stay if `streamed` of them are fetched, at even distances."""
    return frozenset(i for i in range(pages) if (i + 1) * streamed // pages == i * streamed // pages)


def paged(pages: Sequence[Page], resident: frozenset[int], remote: Tier, *, buffers: int = 2) -> Paging:
    """Follow three steps of a model whose pages are used in order; the last one is the steady state.

    Fetches follow each other in the order of use. One begins when the buffer, which holds `buffers` of the
    largest pages that are fetched, has room; a page leaves it at the end of its use.
    """
    away = [i for i in range(len(pages)) if i not in resident]
    buffer_bytes = buffers * max((pages[i].size_bytes for i in away), default=0.0)
    held: deque[tuple[float, float]] = deque()  # when each page leaves the buffer, and what it takes there
    free_bytes, link_free_s, ended_s = buffer_bytes, 0.0, 0.0
    visits, ends_s = [], []
    for _ in range(_CYCLES):
        for index, page in enumerate(pages):
            fetch_s = arrived_s = began_s = ended_s
            if index not in resident:
                fetch_s = link_free_s
                while free_bytes < page.size_bytes:
                    left_s, size_bytes = held.popleft()
                    fetch_s = max(fetch_s, left_s)
                    free_bytes += size_bytes
                free_bytes -= page.size_bytes
                link_free_s = arrived_s = fetch_s + remote.move_s(page.size_bytes)
                began_s = max(ended_s, arrived_s)
            ended_s = began_s + page.use_s + (0.0 if index in resident else page.write_s)
            if index not in resident:
                held.append((ended_s, page.size_bytes))
            visits.append(Visit(index, fetch_s, arrived_s, began_s, ended_s))
        ends_s.append(ended_s)
    stays_bytes = sum(pages[i].size_bytes for i in resident)
    return Paging(
        resident=resident,
        buffer_bytes=buffer_bytes,
        local_bytes=stays_bytes + buffer_bytes,
        step_s=ends_s[-1] - ends_s[-2],
        visits=tuple(visits),
    )


def least_local(pages: Sequence[Page], remote: Tier, *, loss: float, buffers: int = 2) -> Paging:
    """Return the paging that needs the least local memory while a step takes at most 1 + `loss` of its time
    with everything local."""
    limit_s = (1 + loss) * sum(page.use_s for page in pages)
    found = paged(pages, frozenset(range(len(pages))), remote)
    for streamed in range(1, len(pages) + 1):
        tried = paged(pages, spread(len(pages), streamed), remote, buffers=buffers)
        if tried.step_s <= limit_s and tried.local_bytes < found.local_bytes:
            found = tried
    return found


def mistakes(pages: Sequence[Page], paging: Paging) -> list[str]:
    """Say in words where a page is used before it is there, or the buffer holds more than it has room for."""
    found = [f"page {v.page} is used before it arrives" for v in paging.visits if v.began_s < v.arrived_s]
    away = [visit for visit in paging.visits if visit.page not in paging.resident]
    changes = [(v.fetch_s, 1, pages[v.page].size_bytes) for v in away]
    changes += [(v.ended_s, 0, -pages[v.page].size_bytes) for v in away]
    held_bytes = 0.0
    for now_s, _, size_bytes in sorted(changes):
        held_bytes += size_bytes
        if held_bytes > paging.buffer_bytes * (1 + 1e-9):
            found.append(f"the buffer is too full at {now_s:g} s")
    return found
