"""Takes a sequence over from another engine: its KV cache first, then the rest of its answer.

Source: the order of vLLM's NIXL connector (blocks are set aside before they are read) for prompts that were
computed elsewhere; the stages of Llumnix (Sun et al., OSDI 2024) for answers that are under way there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msgspec.structs import replace

from millrace.engine.answer import Answer
from millrace.engine.errors import not_taken_over
from millrace.engine.loop import EngineLoop
from millrace.engine.protocol import KvTransferParams
from millrace.engine.wire import (
    CHUNK_BYTES,
    Attach,
    Attached,
    Blocks,
    Fetch,
    KvFormat,
    Release,
    Stop,
    Stopped,
    TransferError,
    Wire,
)
from millrace.replica.sequence import Sequence

TIMEOUT_S = 10.0
# A sequence is asked to stand still when no more is lacking, or after so many stages.
LAST_BLOCKS = 2
STAGES = 10


class Puller:
    """Fetches sequences for one engine; one that takes longer than `timeout_s` is given up."""

    def __init__(self, loop: EngineLoop, format: KvFormat, *, timeout_s: float = TIMEOUT_S) -> None:
        self._loop, self._format, self._timeout_s = loop, format, timeout_s
        self._size = format.block_tokens
        self._block_bytes = loop.executor.block_bytes
        self._chunk_blocks = max(1, CHUNK_BYTES // self._block_bytes)

    async def prompt(self, params: KvTransferParams, answer: Answer) -> None:
        """Let an answer begin whose prompt was computed elsewhere. ApiError (503) if no cache comes."""
        (generation,) = answer.generations
        sequence = generation.sequence
        async with self._attached(params) as (wire, attached):
            if attached.prompt != generation.tokens:
                raise TransferError("the prompt that was computed there is another one")
            async with self._welcomed(answer, begun=False):
                held = await self._loop.guests.expect(sequence)
                await self._fetch(wire, sequence, held // self._size, self._lacking(sequence))
                await wire.send(Release())
                self._loop.land(answer)

    async def running(
        self, params: KvTransferParams, remake: Callable[[Attached], Answer]
    ) -> tuple[Answer, Attached]:
        """Take over an answer that is under way elsewhere. ApiError (503) if it stays there.

        `remake` makes the answer from what goes along with it. Returns it, and what it was in the end.
        """
        async with self._attached(params) as (wire, attached):
            if attached.answering is None:
                raise TransferError("it has ended there")
            answer = remake(attached)
            (generation,) = answer.generations
            async with self._welcomed(answer, begun=True):
                have = await self._in_stages(wire, generation.sequence)
                stopped = await self._stop(wire, generation.sequence, have, generation.generated)
                generation.follow(stopped.tokens)
                await wire.send(Release())
                self._loop.land(answer)
        return answer, replace(attached, tokens=attached.tokens + stopped.tokens)

    async def _in_stages(self, wire: Wire, sequence: Sequence) -> int:
        """Fetch what there is until little is lacking; return how many blocks are here."""
        have = 0
        for _ in range(STAGES):
            held = await self._loop.guests.host(sequence)
            have, full = max(have, held // self._size), (sequence.length - 1) // self._size
            if full - have < LAST_BLOCKS:
                break
            sequence.sampled = await self._fetch(wire, sequence, have, full)
            have = full
        return have

    async def _stop(self, wire: Wire, sequence: Sequence, have: int, known: int) -> Stopped:
        """Let the source stand still, and fetch what is left."""
        stopped, payload = await wire.ask(Stop(have, known), Stopped)
        sequence.sampled = known + len(stopped.tokens)
        last = self._lacking(sequence)
        if last > len(sequence.table):
            await self._loop.guests.host(sequence)
        await self._write(sequence, have, last, payload)
        return stopped

    async def _fetch(self, wire: Wire, sequence: Sequence, first: int, last: int) -> int:
        """Fetch blocks piece by piece; return how many tokens of its answer the source has by then."""
        generated = sequence.sampled
        for begin in range(first, last, self._chunk_blocks):
            end = min(begin + self._chunk_blocks, last)
            blocks, payload = await wire.ask(Fetch(begin, end), Blocks)
            await self._write(sequence, begin, end, payload)
            generated = blocks.generated
        return generated

    async def _write(self, sequence: Sequence, first: int, last: int, payload: bytes) -> None:
        if len(payload) != (last - first) * self._block_bytes:
            raise TransferError(f"{len(payload)} bytes came for {last - first} blocks")

        def look() -> Callable[[], None]:
            blocks = sequence.table[first:last]
            if len(blocks) < last - first:
                raise TransferError("its blocks are gone")
            return lambda: self._loop.executor.write_blocks(blocks, payload) if blocks else None

        await self._loop.between.ask(look)

    def _lacking(self, sequence: Sequence) -> int:
        """Blocks that hold all but the last token, which is computed here."""
        return -(-(sequence.length - 1) // self._size)

    @asynccontextmanager
    async def _welcomed(self, answer: Answer, *, begun: bool) -> AsyncIterator[None]:
        """Leave nothing of the answer here if what is done inside fails."""
        self._loop.welcome(answer, begun=begun)
        try:
            yield
        except BaseException:
            self._loop.abort(answer)
            raise

    @asynccontextmanager
    async def _attached(self, params: KvTransferParams) -> AsyncIterator[tuple[Wire, Attached]]:
        """Connect to the source, and ask for what it has. ApiError for whatever goes wrong inside."""
        if not params.remote_host or not params.remote_port or not params.remote_request_id:
            raise not_taken_over("remote_host, remote_port and remote_request_id must say where it is")
        try:
            async with asyncio.timeout(self._timeout_s):
                wire = await self._connect(params.remote_host, params.remote_port)
                try:
                    attach = Attach(self._format, params.remote_request_id)
                    attached, _ = await wire.ask(attach, Attached)
                    yield wire, attached
                finally:
                    wire.close()
        except TimeoutError:
            raise not_taken_over(f"it took longer than {self._timeout_s:g} s") from None
        except (TransferError, ValueError) as error:
            raise not_taken_over(str(error)) from error

    async def _connect(self, host: str, port: int) -> Wire:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            raise TransferError(f"cannot connect to {host}:{port}: {error.strerror or error}") from None
        limit_bytes = self._chunk_blocks * self._block_bytes
        return Wire(reader, writer, payload_limit_bytes=limit_bytes)
