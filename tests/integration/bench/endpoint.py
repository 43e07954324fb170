"""Endpoints on real sockets whose every byte, and every failure, a test writes itself."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET

Answering = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request that came in, and the connection on which to answer it."""

    def __init__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.head = head.decode().lower()
        self.body = body
        self._writer = writer

    async def say(self, raw: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(raw)
        await self._writer.drain()

    async def stream(self, *events: bytes, replica: str = "engine-0", end: bool = False) -> None:
        """Begin a 200 answer and write these events, each in a chunk; `end` ends the answer properly."""
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-millrace-replica: {replica}\r\n"
        await self.say(head.encode() + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        for event in events:
            await self.say(b"%x\r\ndata: %b\n\n\r\n" % (len(event) + 8, event))
        if end:
            await self.say(b"0\r\n\r\n")

    async def refuse(self, status: int, body: bytes) -> None:
        """Answer with an error."""
        head = f"HTTP/1.1 {status} No\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        await self.say(head.encode() + body)

    def reset(self) -> None:
        """Break the connection the hard way (RST)."""
        socket = self._writer.get_extra_info("socket")
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


@asynccontextmanager
async def endpoint(answering: Answering) -> AsyncIterator[str]:
    """Serve on a free port and give the URL; each connection carries one request."""
    exchanges: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await answering(Exchange(head, await reader.readexactly(length), writer))
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        exchanges.add(task)
        task.add_done_callback(exchanges.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in exchanges:
            task.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)
