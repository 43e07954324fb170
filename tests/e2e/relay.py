"""A wire between a gateway and an engine that keeps the engine's answers to itself."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


class Relay:
    """Passes connections on to `engine` (a URL), but nothing of what answers a POST.

    `kept` counts the connections on which an answer was kept back: the engine had begun, nobody knows.
    """

    def __init__(self) -> None:
        self.engine = ""
        self.kept = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        parts = urlsplit(self.engine)
        try:
            from_engine, to_engine = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(to_engine)
        posted = asyncio.Event()
        asking = asyncio.create_task(_forward(reader, to_engine, posted))
        try:
            await self._answer(from_engine, writer, posted)
        except ConnectionError:  # how a killed engine ends, and how a gateway that leaves does
            pass
        finally:
            asking.cancel()
            writer.transport.abort()
            to_engine.transport.abort()

    async def _answer(
        self, engine: asyncio.StreamReader, gateway: asyncio.StreamWriter, posted: asyncio.Event
    ) -> None:
        keeping = False
        while data := await engine.read(1 << 16):
            if not posted.is_set():
                gateway.write(data)
            elif not keeping:
                keeping = True
                self.kept += 1


async def _forward(
    gateway: asyncio.StreamReader, engine: asyncio.StreamWriter, posted: asyncio.Event
) -> None:
    while data := await gateway.read(1 << 16):
        if data.startswith(b"POST "):
            posted.set()
        engine.write(data)
    engine.transport.abort()
