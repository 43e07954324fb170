"""Sequences whose KV cache comes from another engine, while they wait for blocks of this one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from millrace.engine.wire import TransferError
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence


class Guests:
    """Asks the replica for blocks; `wake` lets an idle engine look at once."""

    def __init__(self, replica: Replica, wake: Callable[[], None]) -> None:
        self._replica, self._wake = replica, wake
        self._waiting: dict[str, asyncio.Future[int]] = {}

    async def expect(self, sequence: Sequence) -> int:
        """Wait for blocks for a prompt; return how many of its tokens the prefix cache has."""
        return await self._ask(sequence, self._replica.expect)

    async def host(self, sequence: Sequence) -> int:
        """Take blocks for all that a running sequence has by now, at once or not at all (TransferError).

        Returns how many of its tokens the prefix cache had.
        """
        batch = self._replica.batch
        if batch.known.get(sequence.id) is not sequence:
            self._replica.vet(sequence)
        return await self._ask(sequence, batch.host)

    def answer(self) -> None:
        """Tell those who got their blocks in the plan just made, or none."""
        for sequence, lacking in self._replica.reserved():
            self._tell(sequence.id, sequence.prompt_tokens - lacking)
        for sequence, held in self._replica.batch.hosted():
            self._tell(sequence.id, held)

    def forget(self, id: str) -> None:
        """Somebody does not wait any more."""
        waiting = self._waiting.pop(id, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(TransferError("it was given up here"))

    async def _ask(self, sequence: Sequence, wish: Callable[[Sequence], None]) -> int:
        wish(sequence)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[sequence.id] = answer
        self._wake()
        return await answer

    def _tell(self, id: str, held_tokens: int | None) -> None:
        waiting = self._waiting.pop(id, None)
        if waiting is None or waiting.done():
            return
        if held_tokens is None:
            waiting.set_exception(TransferError("no KV blocks are free for it"))
        else:
            waiting.set_result(held_tokens)
