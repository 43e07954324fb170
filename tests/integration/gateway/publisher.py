"""A publisher of KV events that does what a test tells it: vLLM's sockets and frames, and every fault."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import zmq
import zmq.asyncio

END = b"\xff" * 8


class Publisher:
    """Publishes on a free port, and on a fixed one after a restart. With `replays`, it repeats what it said.

    Of what it said it forgets all before `forgets_before`; a `mute` one is asked in vain. Made inside the
    event loop.
    """

    def __init__(self, *, replays: bool = True) -> None:
        self.replays = replays
        self.said: list[tuple[int, bytes]] = []
        self.asked: list[int] = []
        self.forgets_before = 0
        self.mute = False
        self.number = 0
        self._ports = [0, 0]
        self._context = zmq.asyncio.Context()
        self._sockets: list[zmq.asyncio.Socket] = []
        self._answering: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """What comes behind the name in `--kv-events`."""
        replay = f",replay=tcp://127.0.0.1:{self._ports[1]}" if self.replays else ""
        return f"tcp://127.0.0.1:{self._ports[0]}{replay}"

    async def __aenter__(self) -> Publisher:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._context.destroy(linger=0)

    async def start(self) -> None:
        """Begin to listen."""
        for place, kind in enumerate((zmq.PUB, zmq.ROUTER)):
            socket = self._context.socket(kind)
            self._sockets.append(socket)
            if port := self._ports[place]:
                await _bind_again(socket, port)
            else:
                self._ports[place] = socket.bind_to_random_port("tcp://127.0.0.1")
        self._answering = asyncio.create_task(self._answer(self._sockets[1]))

    async def stop(self) -> None:
        """Go without a word."""
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)
        for socket in self._sockets:
            socket.close(linger=0)
        self._sockets.clear()

    async def restart(self) -> None:
        """Begin a new life: the same ports, other numbers, nothing to repeat."""
        await self.stop()
        self.said.clear()
        self.number = 0
        await self.start()

    async def say(self, *events: Any, lost: bool = False) -> None:
        """Publish a batch; a `lost` one is only there to be repeated."""
        await self.say_bytes(msgspec.msgpack.encode([1.5, events, 0]), lost=lost)

    async def say_bytes(self, payload: bytes, *, lost: bool = False) -> None:
        """Publish any bytes under the next number."""
        number, self.number = self.number, self.number + 1
        self.said.append((number, payload))
        if not lost:
            await self.send(b"", number.to_bytes(8, "big"), payload)

    async def send(self, *frames: bytes) -> None:
        """Send any frames."""
        await self._sockets[0].send_multipart(frames)

    async def _answer(self, router: zmq.asyncio.Socket) -> None:
        while True:
            who, _, first = await router.recv_multipart()
            self.asked.append(int.from_bytes(first, "big"))
            for number, payload in () if self.mute else self.said:
                if number >= max(self.asked[-1], self.forgets_before):
                    await router.send_multipart([who, b"", number.to_bytes(8, "big"), payload])
            if not self.mute:
                await router.send_multipart([who, b"", END, b""])


async def _bind_again(socket: zmq.asyncio.Socket, port: int) -> None:
    """Sockets are closed by a thread of ZeroMQ's own, in its own time."""
    while True:
        try:
            socket.bind(f"tcp://127.0.0.1:{port}")
        except zmq.ZMQError:
            await asyncio.sleep(0.005)
        else:
            return
