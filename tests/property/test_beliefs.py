"""What is believed of a cache that forgets first what was not used for longest, against such a cache."""

from __future__ import annotations

from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from millrace.control.horizon import Trail
from millrace.control.prefixes import SentPrefixes
from millrace.core.blocks import chain_contents
from millrace.core.draw import draw_below
from millrace.core.event import Finished
from millrace.core.request import Request
from millrace.testing import fakes

SIZE = 16


class Cache:
    """Room for so many blocks; of a prompt the end was used before the beginning."""

    def __init__(self, blocks: int) -> None:
        self._room = blocks
        self.held: list[int] = []

    def compute(self, request: Request) -> int:
        """Return how many tokens of a prompt are there, and put all of it there."""
        prompt = request.blocks
        found = sum(1 for _ in takewhile(self.held.__contains__, prompt))
        self.held = [block for block in self.held if block not in prompt] + list(reversed(prompt))
        del self.held[: -self._room]
        return found * SIZE


def _request(contents: tuple[int, ...]) -> Request:
    return fakes.request(
        blocks=chain_contents(contents), prompt_tokens=SIZE * len(contents), block_tokens=SIZE
    )


prompts = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=6).map(lambda one: _request(tuple(one))), max_size=30
)


@given(prompts=prompts, blocks=st.integers(1, 20))
def test_whatever_is_in_a_cache_of_known_size_is_believed_to_be_there(
    prompts: list[Request], blocks: int
) -> None:
    index, cache = SentPrefixes(1 << 20), Cache(blocks)
    index.assume(blocks * SIZE)
    for request in prompts:
        believed = index.matched_tokens(request)
        assert index.remember(request) == believed
        assert believed >= min(cache.compute(request), blocks * SIZE)


@given(others=st.integers(0, 30), length=st.integers(1, 8), blocks=st.integers(1, 20))
def test_of_a_prompt_exactly_what_is_left_is_believed_to_be_there_if_all_others_are_new(
    others: int, length: int, blocks: int
) -> None:
    index, cache = SentPrefixes(1 << 20), Cache(blocks)
    index.assume(blocks * SIZE)
    first = _request(tuple(range(length)))
    for request in (first, *(_request((n,)) for n in range(100, 100 + others))):
        index.remember(request)
        cache.compute(request)
    assert index.matched_tokens(first) == cache.compute(first)


def _errors(blocks: int, *, learns: bool) -> tuple[int, int]:
    """Return the tokens that were believed in wrongly, and those that were there all the same."""
    index, cache = SentPrefixes(1 << 20), Cache(blocks)
    wrong = missed = 0
    for n in range(600):
        conversation = draw_below(1 + draw_below(60, "spread", n), "conversation", n)
        request = _request((conversation, *range(1 + draw_below(12, "turns", n))))
        (believed, trail), found = index.send(request, pending_tokens=0), cache.compute(request)
        if learns:
            told = Finished(0.0, "q", request.prompt_tokens, 0, found)
            index.learn(request, trail, told, new_tokens=request.prompt_tokens - believed)
        wrong, missed = wrong + max(0, believed - found), missed + max(0, found - believed)
    return wrong, missed


def test_a_cache_of_unknown_size_is_believed_in_less_and_less_wrongly() -> None:
    for blocks in (30, 60, 120):
        (wrong, missed), (always_wrong, _) = _errors(blocks, learns=True), _errors(blocks, learns=False)
        assert wrong + missed < 0.6 * always_wrong, (blocks, wrong, missed, always_wrong)


def test_answers_that_say_nothing_teach_nothing_but_count() -> None:
    index, request = SentPrefixes(1 << 20), _request((1, 2, 3))
    index.assume(80)
    index.remember(request)
    index.learn(request, index.send(request, pending_tokens=0)[1], Finished(0.0, "q"), new_tokens=0)
    assert index.matched_tokens(request) == 48
    index.learn(request, Trail(), Finished(0.0, "q", output_tokens=48, cached_tokens=0), new_tokens=0)
    assert index.matched_tokens(request) == 32
    index.remember(fakes.request(prompt_tokens=32))
    assert index.matched_tokens(request) == 0
