"""Two engines in one process, a real socket between them, and a link that can be cut at any byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from millrace.core.replica import Limits
from millrace.engine.answer import Answer
from millrace.engine.detokenizer import ByteDetokenizer
from millrace.engine.executor import TorchExecutor
from millrace.engine.exports import Exports, Offer
from millrace.engine.generation import Generation, generation
from millrace.engine.loop import EngineLoop
from millrace.engine.metrics import Metrics
from millrace.engine.model import Model
from millrace.engine.port import Port
from millrace.engine.protocol import KvTransferParams
from millrace.engine.pulling import Puller
from millrace.engine.responses import Envelope
from millrace.engine.wire import Attached, KvFormat
from millrace.policies.batching.split_fuse import Policy
from millrace.replica.replica import Replica

BLOCKS, BLOCK_TOKENS = 64, 4
PATIENCE_S = 90.0  # a machine may stand still for a while; less than a test may take
NUMBERS = count()
ENVELOPE = Envelope("cmpl-1", 0, "m")


def silent() -> ByteDetokenizer:
    return ByteDetokenizer(lambda token: b".")


class Side:
    """One engine: its loop, its KV port, and what fetches for it."""

    def __init__(self, model: Model, *, blocks: int = BLOCKS, timeout_s: float = 5.0) -> None:
        replica = Replica(Limits(kv_blocks=blocks, block_tokens=BLOCK_TOKENS, sequences=4), Policy())
        executor = TorchExecutor(model, kv_blocks=blocks, block_tokens=BLOCK_TOKENS)
        self.loop = EngineLoop(
            replica, executor, Metrics(replica, "m"), waiting=8, observe=lambda step, result: None
        )
        shape = executor.kv_shape
        self.format = KvFormat(
            fingerprint="same",
            dtype=executor.dtype,
            layers=shape.layers,
            heads=shape.heads,
            head_size=shape.head_size,
            block_tokens=shape.block_tokens,
        )
        self.exports = Exports(self.loop, hold_s=0.2)
        self.puller = Puller(self.loop, self.format, timeout_s=timeout_s)
        self.port = 0

    @property
    def free(self) -> bool:
        """Whether no KV block is held."""
        return self.loop.replica.kv_free_tokens == self._all_tokens

    @property
    def _all_tokens(self) -> int:
        limits = self.loop.replica.limits
        return limits.kv_blocks * limits.block_tokens

    def answer(self, prompt: list[int], max_tokens: int, *, keeps: bool = False) -> Answer:
        """An answer that is not submitted yet."""
        made = generation(
            f"s-{next(NUMBERS)}", prompt, max_tokens, detokenizer=silent(), block_tokens=BLOCK_TOKENS
        )
        made.sequence.keeps = keeps
        return Answer([made])

    def offer(self, answer: Answer, name: str = "r") -> None:
        """Let the other side take it over."""
        self.exports.offer(name, Offer(answer, ENVELOPE, True))

    def remake(self, attached: Attached) -> Answer:
        """The other side's answer, here."""
        along = attached.answering
        assert along is not None
        made: Generation = generation(
            f"t-{next(NUMBERS)}",
            attached.prompt,
            along.max_tokens,
            detokenizer=silent(),
            block_tokens=BLOCK_TOKENS,
            sampling=along.sampling,
            ending=along.ending,
        )
        made.resume(attached.tokens)
        return Answer([made])


@dataclass
class Link:
    """A relay to an engine's KV port; after so many bytes, either way, it is cut."""

    port: int
    cut_after_bytes: int | None = None
    passed_bytes: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers += [writer, back]
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(256):
                self.passed_bytes += len(data)
                if self.cut_after_bytes is not None and self.passed_bytes > self.cut_after_bytes:
                    self.cut()
                    return
                writer.write(data)
        except OSError:
            return
        finally:
            writer.close()

    def cut(self) -> None:
        """Break every connection."""
        for writer in self.writers:
            writer.transport.abort()


@asynccontextmanager
async def linked(source: Side, target: Side) -> AsyncIterator[Link]:
    """Run both engines, with a link to the source's KV port."""
    ports = Port(source.exports, source.format)
    steps = [asyncio.create_task(side.loop.run()) for side in (source, target)]
    server = await asyncio.start_server(ports.serve, "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname()[1])
    relay = await asyncio.start_server(link.serve, "127.0.0.1", 0)
    source.port = relay.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        for step in steps:
            step.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
        link.cut()
        for one in (server, relay):
            one.close()


def params(source: Side, name: str = "r", *, move: bool = True) -> KvTransferParams:
    """Where the target finds it."""
    return KvTransferParams(
        do_remote_move=move,
        do_remote_prefill=not move,
        remote_request_id=name,
        remote_host="127.0.0.1",
        remote_port=source.port,
    )


async def tokens_of(answer: Answer) -> list[int]:
    """All that is still to come of an answer."""
    found: list[int] = []
    async for parts in answer.parts():
        found += [token for part in parts for token in part.delta.tokens]
    return found


async def until_free(*sides: Side) -> None:
    """Wait until nothing is held on either side."""
    async with asyncio.timeout(PATIENCE_S):
        while not all(side.free for side in sides):
            await asyncio.sleep(0.01)
