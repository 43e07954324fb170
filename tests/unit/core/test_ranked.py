"""A heap from which anything can be taken agrees with sorting, whatever comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millrace.core.ranked import Ranked

moves = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | st.integers(0, 4)), max_size=60)


@given(moves=moves)
def test_the_first_is_always_the_one_of_the_lowest_rank(moves: list[tuple[str, int | None]]) -> None:
    ranked, ranks = Ranked(), dict[str, int]()
    for name, rank in moves:
        if rank is None:
            ranked.discard(name)
            ranks.pop(name, None)
        else:
            ranked.put(name, rank)
            ranks[name] = rank
        lowest = min(((rank, name) for name, rank in ranks.items()), default=(None, None))
        assert (ranked.first_rank(), ranked.first()) == lowest
        assert len(ranked) == len(ranks)
        assert (name in ranked) == (rank is not None)


def test_who_left_is_forgotten_before_it_is_half_of_the_heap() -> None:
    ranked = Ranked()
    for n in range(1000):
        ranked.put("first", 0)
        ranked.put(f"q{n}", n + 1)
        ranked.discard(f"q{n}")
    assert len(ranked._heap) <= 2 * len(ranked) + 8
