"""Turns of a conversation: how many there are, how long after each other, and how prompts grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

from msgspec import Struct

from millrace.core.chance import Chance, quantiles
from millrace.core.synthetic.lengths import Lengths, fit_lengths
from millrace.core.trace import TraceRecord

_KNOTS = 33
_MOST_TURNS = 64


class Turns(Struct, frozen=True, kw_only=True):
    """`shares[n]` of the conversations have at most n + 1 turns.

    `gap_s` and `growth_tokens` are evenly spaced quantiles: of the time from one turn's arrival to the
    next one's, and of how much longer the next prompt is. `lengths` are those of later turns.
    """

    shares: tuple[float, ...]
    gap_s: tuple[float, ...]
    growth_tokens: tuple[float, ...]
    lengths: Lengths

    def count(self, chance: Chance) -> int:
        """Draw how many turns a conversation has."""
        place = chance.uniform()
        return 1 + sum(place > share for share in self.shares[:-1])


def by_session(records: Iterable[TraceRecord]) -> list[list[TraceRecord]]:
    """Group ordered records into conversations, in the order of their first turns; others stand alone."""
    found: dict[str, list[TraceRecord]] = {}
    for record in records:
        key = f"#{record.id}" if record.session is None else f" {record.session}"
        found.setdefault(key, []).append(record)
    return list(found.values())


def answered(records: Iterable[TraceRecord]) -> list[tuple[int, int]]:
    """Return the tokens of prompts and of answers, where there was one."""
    return [(record.input_tokens, record.output_tokens) for record in records if not record.failed]


def fit_turns(sessions: Sequence[Sequence[TraceRecord]], strata: int) -> Turns | None:
    """Fit to conversations; None if none of them has a second turn. Turns beyond the 64th are not counted.

    If no later turn got an answer, they are taken to be answered like all others.
    """
    following = [pair for session in sessions for pair in pairwise(session)]
    if not following:
        return None
    counts = Counter(min(len(session), _MOST_TURNS) for session in sessions)
    upto, shares = 0, []
    for turns in range(1, max(counts) + 1):
        upto += counts[turns]
        shares.append(upto / len(sessions))
    return Turns(
        shares=tuple(shares),
        gap_s=quantiles([b.t_s - a.t_s for a, b in following], _KNOTS),
        growth_tokens=quantiles([b.input_tokens - a.input_tokens for a, b in following], _KNOTS),
        lengths=fit_lengths(answered(b for _, b in following) or answered(chain(*sessions)), strata),
    )
