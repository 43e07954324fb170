"""What other engines may take from this one: prompts computed for them, and answers that are under way.

Source: a prompt's blocks are kept until they were read, or for so long, as in vLLM's NIXL connector; a
running sequence goes on until little is lacking, then stands still for the rest, as in Llumnix (Sun et al.,
OSDI 2024).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from millrace.engine.answer import Answer
from millrace.engine.generation import Generation
from millrace.engine.loop import EngineLoop
from millrace.engine.responses import Envelope
from millrace.engine.wire import CHUNK_BYTES, Answering, TransferError
from millrace.replica.sequence import Sequence

HOLD_S = 10.0
STILL_S = 2.0


@dataclass(frozen=True, slots=True)
class Offer:
    """An answer of one sequence that may go on elsewhere."""

    answer: Answer
    envelope: Envelope
    skip_special: bool

    @property
    def generation(self) -> Generation:
        """Its sequence."""
        return self.answer.generations[0]

    def answering(self) -> Answering:
        """What goes along with it."""
        one = self.generation
        return Answering(
            id=self.envelope.id,
            created=self.envelope.created,
            model=self.envelope.model,
            max_tokens=one.sequence.max_tokens,
            cached_tokens=one.sequence.cached_tokens,
            skip_special=self.skip_special,
            sampling=one.sampling,
            ending=one.ending,
        )


class Export:
    """One sequence as another engine reads it. All that it does to it is done between two steps."""

    def __init__(self, exports: Exports, generation: Generation, offer: Offer | None) -> None:
        self._exports, self._loop = exports, exports.loop
        self.generation, self.offer = generation, offer
        self._still = False
        self._alarm: asyncio.TimerHandle | None = None

    def answering(self) -> Answering | None:
        """What goes along with it, if it runs."""
        return None if self.offer is None else self.offer.answering()

    async def tokens(self) -> tuple[list[int], list[int]]:
        """Return the tokens of the prompt and of the answer so far."""

        def look() -> Callable[[], tuple[list[int], list[int]]]:
            self._check()
            prompt = self.generation.sequence.prompt_tokens
            told = list(self.generation.tokens)
            return lambda: (told[:prompt], told[prompt:])

        return await self._loop.between.ask(look)

    async def read(self, first: int, last: int) -> memoryview:
        """Copy the blocks numbered `first` … `last` - 1, all of which must be full, or the prompt's."""

        def look() -> Callable[[], memoryview]:
            return self._copying(self._check(), first, last)

        return await self._loop.between.ask(look)

    async def stop(self, first: int, known: int) -> tuple[list[int], memoryview]:
        """Stop a running sequence; return the tokens behind the first `known`, and the blocks from `first`.

        Unless it is released soon it goes on here.
        """

        def look() -> Callable[[], tuple[list[int], memoryview]]:
            sequence = self._check()
            if self.offer is None or self._still:
                raise TransferError("it does not run, so it cannot be stopped")
            last = -(-sequence.computed // self._loop.replica.limits.block_tokens)
            if not 0 <= first <= last or not 0 <= known <= sequence.generated:
                raise TransferError(f"block {first} or token {known} is beyond what it has")
            if last - first > self._exports.chunk_blocks:
                raise TransferError(f"{last - first} blocks are too many to stand still for")
            if not self._loop.replica.batch.set_aside(sequence):
                raise TransferError("no KV block is free to go on with if the rest fails")
            self._still = True
            self._alarm = asyncio.get_running_loop().call_later(STILL_S, self.let_go)
            tokens = self.generation.tokens[sequence.prompt_tokens + known :]
            copy = self._copying(sequence, first, last)
            return lambda: (tokens, copy())

        return await self._loop.between.ask(look)

    def release(self) -> None:
        """All of it is at the other engine: forget it here. TransferError if it is too late for that."""
        if self.offer is None:
            if not self._exports.drop(self.generation.id):
                raise TransferError("its blocks are not kept any more")
            return
        self._check()
        if not self._still:
            raise TransferError("it does not stand still")
        self._end_stand()
        self._loop.give_away(self.offer.answer)

    def let_go(self) -> None:
        """Whoever wanted it has left, or takes too long: a running sequence goes on here."""
        if self._still:
            self._end_stand()
            assert self.offer is not None
            self._loop.land(self.offer.answer)
        self._exports.attached(self.generation.id, here=False)

    def _end_stand(self) -> None:
        self._still = False
        if self._alarm is not None:
            self._alarm.cancel()

    def _check(self) -> Sequence:
        sequence = self.generation.sequence
        if self.offer is None:
            if not self._exports.keeps(self.generation.id):
                raise TransferError("its blocks are not kept any more")
        elif not self._loop.has(self.offer.answer):
            raise TransferError("it has ended")
        elif sequence.pace is None and not self._still:
            raise TransferError("it waits or computes its prompt just now")
        return sequence

    def _copying(self, sequence: Sequence, first: int, last: int) -> Callable[[], memoryview]:
        size = self._loop.replica.limits.block_tokens
        full = (
            -(-sequence.computed // size) if self._still or self.offer is None else sequence.computed // size
        )
        if not 0 <= first <= last <= full or last - first > self._exports.chunk_blocks:
            raise TransferError(f"blocks {first} to {last} cannot be had: {full} are full")
        blocks = sequence.table[first:last]
        executor = self._loop.executor
        return lambda: executor.read_blocks(blocks) if blocks else memoryview(b"")


class Exports:
    """The sequences that others may ask for: kept prompts by their own ids, answers by their requests'."""

    def __init__(self, loop: EngineLoop, *, hold_s: float = HOLD_S) -> None:
        self.loop = loop
        self.chunk_blocks = max(1, CHUNK_BYTES // loop.executor.block_bytes)
        self._hold_s = hold_s
        self._offers: dict[str, Offer] = {}
        self._kept: dict[str, Generation] = {}
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        loop.on_kept = self._keep

    def offer(self, request_id: str, offer: Offer) -> None:
        """Let others take an answer over, until `withdraw`."""
        self._offers[request_id] = offer

    def withdraw(self, request_id: str, offer: Offer) -> None:
        """An answer has ended."""
        if self._offers.get(request_id) is offer:
            del self._offers[request_id]

    def find(self, request_id: str) -> Export:
        """Return what is asked for. Raises TransferError if it is not here."""
        if (offer := self._offers.get(request_id)) is not None:
            return Export(self, offer.generation, offer)
        if (kept := self._kept.get(request_id)) is not None:
            self.attached(request_id, here=True)
            return Export(self, kept, None)
        raise TransferError(f"there is no request {request_id!r} here, or no longer")

    def keeps(self, id: str) -> bool:
        """Whether a prompt's blocks are still here."""
        return id in self._kept

    def drop(self, id: str) -> bool:
        """Free a prompt's blocks; False if they were not kept."""
        if self._kept.pop(id, None) is None:
            return False
        self._quiet(id)
        self.loop.drop_kept(id)
        return True

    def attached(self, id: str, *, here: bool) -> None:
        """Note that somebody has come for a kept prompt, or has left without it."""
        self._quiet(id)
        if not here and id in self._kept:
            self._alarms[id] = asyncio.get_running_loop().call_later(self._hold_s, self.drop, id)

    def _keep(self, generation: Generation) -> None:
        self._kept[generation.id] = generation
        self.attached(generation.id, here=False)

    def _quiet(self, id: str) -> None:
        if alarm := self._alarms.pop(id, None):
            alarm.cancel()
