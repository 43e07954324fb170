"""Whoever listens to an engine's KV events knows exactly what is in its prefix cache."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from millrace.control.cached import ENTRY_BYTES, CachedPrefixes
from millrace.control.clock import Clock
from millrace.core.blocks import chain_contents, contents_of
from millrace.core.replica import Limits
from millrace.engine.detokenizer import WindowDetokenizer
from millrace.engine.generation import Generation, generation
from millrace.engine.kv_events import Batch, CacheWatch
from millrace.gateway.kv_events.decoding import Decoder
from millrace.policies import load
from millrace.replica.executor import Step, StepResult
from millrace.replica.replica import Replica
from millrace.testing import fakes

SIZE, BLOCKS = 2, 12


class Listener:
    """An index that hears what an engine would put on the wire."""

    def __init__(self) -> None:
        self.index = CachedPrefixes(1 << 20, clock=Clock())
        self._decoder = Decoder(SIZE)

    def hear(self, events: Batch) -> None:
        """Follow a batch as it comes out of msgpack."""
        self.index.note(self._decoder.read(msgspec.msgpack.encode([1.5, events, 0])))

    def matched(self, tokens: list[int]) -> int:
        """How many leading blocks are there."""
        blocks = chain_contents(contents_of(tokens, SIZE))
        asked = fakes.request(blocks=blocks, block_tokens=SIZE, prompt_tokens=1000)
        return self.index.matched_tokens(asked) // SIZE


def _run(replica: Replica, active: dict[str, Generation], tell: Callable[[], None]) -> None:
    """Compute until nobody runs; every token is the last one plus one."""

    def compute(step: Step) -> StepResult:
        for chunk in step.chunks:
            if chunk.emits:
                one = active[chunk.sequence.id]
                one.accept((one.tokens[-1] + 1) % 3)
        return StepResult(0.0)

    while (step := replica.plan()) is not None:
        progress = replica.commit(step, compute(step))
        tell()
        for end in progress.ended:
            del active[end.sequence.id]


prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8)


@given(prompts, st.integers(1, 4), st.integers(1, 3))
def test_the_index_of_who_listens_equals_the_cache(
    given_prompts: list[list[int]], max_tokens: int, together: int
) -> None:
    limits = Limits(kv_blocks=BLOCKS, block_tokens=SIZE, step_tokens=8, sequences=2, context_tokens=32)
    replica = Replica(limits, load("batching", "split_fuse"))
    listener, active = Listener(), dict[str, Generation]()
    watch = CacheWatch(replica, listener.hear)
    for start in range(0, len(given_prompts), together):
        for number, tokens in enumerate(given_prompts[start : start + together]):
            one = generation(
                f"{start}-{number}",
                tokens,
                max_tokens,
                detokenizer=WindowDetokenizer(str),
                block_tokens=SIZE,
            )
            active[one.id] = one
            replica.add(one.sequence)
        _run(replica, active, lambda: watch.tell(active.values()))
        pool = replica.batch.pool
        assert listener.index.held_bytes == ENTRY_BYTES * pool.findable
        for tokens in given_prompts:
            hashes = generation(
                "", tokens, 1, detokenizer=WindowDetokenizer(str), block_tokens=SIZE
            ).sequence.blocks
            assert listener.matched(tokens) == pool.matched(hashes)
