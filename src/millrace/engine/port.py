"""The KV port: other engines connect to it and take blocks, one sequence per connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from millrace.engine.errors import ApiError
from millrace.engine.exports import Export, Exports
from millrace.engine.wire import (
    Attach,
    Attached,
    Blocks,
    Fetch,
    KvFormat,
    Message,
    Refused,
    Release,
    Stop,
    Stopped,
    TransferError,
    Wire,
)

MOST_CONNECTIONS = 64
SILENCE_S = 10.0


class Port:
    """Answers engines that want blocks; whatever happens to a connection, nothing stays reserved."""

    def __init__(self, exports: Exports, format: KvFormat) -> None:
        self._exports, self._format = exports, format
        self._connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends, in whatever way."""
        wire = Wire(reader, writer, payload_limit_bytes=0)
        self._connections += 1
        try:
            async with asyncio.timeout(SILENCE_S) as patience:
                await self._converse(wire, patience)
        except TimeoutError:
            await _refuse(wire, f"nothing was asked for {SILENCE_S:g} s")
        except ApiError:
            await _refuse(wire, "the engine is stopping")
        except TransferError as error:
            await _refuse(wire, str(error))
        finally:
            self._connections -= 1
            wire.close()

    async def _converse(self, wire: Wire, patience: asyncio.Timeout) -> None:
        if self._connections > MOST_CONNECTIONS:
            raise TransferError(f"{MOST_CONNECTIONS} engines are connected already")
        asked, _ = await wire.receive()
        if not isinstance(asked, Attach):
            raise TransferError("say first what you want")
        if wrong := self._format.difference(asked.format):
            raise TransferError(f"these engines cannot share a KV cache: {wrong}")
        export = self._exports.find(asked.request_id)
        try:
            prompt, tokens = await export.tokens()
            await wire.send(Attached(prompt, tokens, export.answering()))
            while True:
                _postpone(patience)
                message, _ = await wire.receive()
                if isinstance(message, Release):
                    export.release()
                    return
                await _answer(wire, export, message)
        finally:
            export.let_go()


async def _answer(wire: Wire, export: Export, message: Message) -> None:
    if isinstance(message, Fetch):
        payload = await export.read(message.first, message.last)
        await wire.send(Blocks(export.generation.sequence.generated), payload)
    elif isinstance(message, Stop):
        tokens, payload = await export.stop(message.first, message.tokens)
        await wire.send(Stopped(tokens), payload)
    else:
        raise TransferError(f"{type(message).__name__} is nothing to ask for")


def _postpone(patience: asyncio.Timeout) -> None:
    patience.reschedule(asyncio.get_running_loop().time() + SILENCE_S)


async def _refuse(wire: Wire, why: str) -> None:
    try:
        await wire.send(Refused(why))
    except TransferError:
        return  # nobody is there any more to be told


@asynccontextmanager
async def listening(port: Port, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve on the listener inside the block, if there is one."""
    if listener is None:
        yield
        return
    server = await asyncio.start_server(port.serve, sock=listener)
    try:
        yield
    finally:
        server.close()
