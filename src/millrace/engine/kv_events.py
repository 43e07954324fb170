"""Says what enters and leaves the prefix cache, over ZeroMQ, in the words of vLLM.

Source: vLLM's `ZmqEventPublisher`, with its events as arrays, which all listeners understand. What was said
is told again from a number on to whoever asks the replay socket.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from millrace.engine.generation import Generation
from millrace.engine.settings import EngineSettings
from millrace.replica.replica import Replica

if TYPE_CHECKING:
    import zmq.asyncio

BATCHES_KEPT = 10_000
END = b"\xff" * 8
KEY_BITS = (1 << 64) - 1  # that listeners keep of a block's hash

Teller = Callable[[Iterable[Generation]], None]
"""Given who computes at the moment, says what has changed in the cache since it was last called."""

Batch = list[list[object]]


class CacheWatch:
    """Compares what can be found in a replica's cache with what was said to be there.

    That is right whatever the cache does in between, and takes microseconds beside a step's milliseconds.
    """

    def __init__(self, replica: Replica, say: Callable[[Batch], None]) -> None:
        self._pool, self._block_tokens = replica.batch.pool, replica.limits.block_tokens
        self._say = say
        self._said: set[int] = set()

    def tell(self, generations: Iterable[Generation]) -> None:
        """Say what has left, and then what came, in the order of prompts, with its tokens."""
        there = set(self._pool.contents())
        gone, new = self._said - there, there - self._said
        events: Batch = []
        if gone:
            events.append(["BlockRemoved", [_key(content) for content in gone], "GPU"])
        for generation in generations if new else ():
            events += self._stored(generation, new)
        self._said = there - new
        if events:
            self._say(events)

    def _stored(self, generation: Generation, new: set[int]) -> Batch:
        """Say which of a generation's blocks are new, each row of them at once."""
        events: Batch = []
        blocks, size = generation.sequence.blocks, self._block_tokens
        end = 0
        for at, block in enumerate(blocks):
            if block not in new:
                continue
            new.discard(block)
            tokens = generation.tokens[at * size : (at + 1) * size]
            if at and at == end:
                _extend(events[-1], _key(block), tokens)
            else:
                parent = _key(blocks[at - 1]) if at else None
                events.append(["BlockStored", [_key(block)], parent, tokens, size, None, "GPU", None])
            end = at + 1
        return events


def _extend(stored: list[object], key: int, tokens: list[int]) -> None:
    keys, said = stored[1], stored[3]
    assert isinstance(keys, list)
    assert isinstance(said, list)
    keys.append(key)
    said += tokens


def _key(content: int) -> int:
    return content & KEY_BITS


@asynccontextmanager
async def publishing(settings: EngineSettings, replica: Replica) -> AsyncIterator[Teller]:
    """Publish as the settings say, or not at all, while the block runs. ValueError for a bad address."""
    if settings.kv_events is None:
        yield lambda generations: None
        return
    import zmq.asyncio  # an extra, needed by who publishes only

    context = zmq.asyncio.Context()
    kept: deque[tuple[bytes, bytes]] = deque(maxlen=BATCHES_KEPT)
    tasks: list[asyncio.Task[None]] = []
    try:
        publisher: zmq.Socket[bytes] = zmq.Socket.shadow(_bound(context, zmq.PUB, settings.kv_events))
        if settings.kv_replay is not None:
            router = _bound(context, zmq.ROUTER, settings.kv_replay)
            tasks.append(asyncio.create_task(_repeat(router, kept)))
        count = 0

        def say(events: Batch) -> None:
            nonlocal count
            number, payload = count.to_bytes(8, "big"), msgspec.msgpack.encode([time.time(), events, 0])
            count += 1
            kept.append((number, payload))
            publisher.send_multipart([b"", number, payload])

        yield CacheWatch(replica, say).tell
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        context.destroy(linger=0)


def _bound(context: zmq.asyncio.Context, kind: int, address: str) -> zmq.asyncio.Socket:
    import zmq

    socket = context.socket(kind)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise ValueError(f"cannot publish KV events on {address}: {error.strerror}; choose another") from None
    return socket


async def _repeat(router: zmq.asyncio.Socket, kept: deque[tuple[bytes, bytes]]) -> None:
    """Tell whoever asks what is kept from a number on; who asks in other words is not answered."""
    while True:
        frames = await router.recv_multipart()
        if len(frames) != 3 or len(frames[2]) != 8:
            continue
        for number, payload in list(kept):
            if number >= frames[2]:
                await router.send_multipart([frames[0], b"", number, payload])
        await router.send_multipart([frames[0], b"", END, b""])
