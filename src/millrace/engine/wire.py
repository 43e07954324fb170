"""How engines speak to each other when a KV cache moves: frames over TCP, checked before they are believed.

A frame is a fixed head (magic, version, two lengths), a msgpack header that says what it is, and raw bytes of
KV blocks. The engine that needs blocks connects and asks, as in vLLM's NIXL connector, which reads from the
one that has them.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TypeVar

import msgspec
from msgspec import Struct

from millrace.engine.generation import Ending
from millrace.engine.sampling import Sampling

MAGIC = b"MRKV"
VERSION = 1
# A header is mostly the tokens of a sequence, at most five bytes each.
HEADER_LIMIT_BYTES = 8 << 20
CHUNK_BYTES = 4 << 20
_HEAD = struct.Struct("!4sB3xII")


class TransferError(Exception):
    """A KV cache did not come, or did not go: the other side's reason, or the connection's."""


class KvFormat(Struct, frozen=True, kw_only=True):
    """What two engines must have in common: the weights' `fingerprint`, and how a block lies in memory."""

    fingerprint: str
    dtype: str
    layers: int
    heads: int
    head_size: int
    block_tokens: int

    def difference(self, other: KvFormat) -> str | None:
        """Say in what they differ, None if they do not."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} is {mine!r} here and {theirs!r} there"
        return None


class Answering(Struct, frozen=True, kw_only=True):
    """What goes along with a running answer: all that its tokens do not tell."""

    id: str
    created: int
    model: str
    max_tokens: int
    cached_tokens: int
    skip_special: bool
    sampling: Sampling
    ending: Ending


class Attach(Struct, frozen=True, tag=True):
    """Asked first: which request's blocks are wanted, by an engine of this format."""

    format: KvFormat
    request_id: str


class Attached(Struct, frozen=True, tag=True):
    """Its tokens so far; `answering` is set if it runs, else its prompt is all there is."""

    prompt: list[int]
    tokens: list[int]
    answering: Answering | None


class Fetch(Struct, frozen=True, tag=True):
    """Asks for the blocks numbered `first` … `last` - 1 of the sequence."""

    first: int
    last: int


class Blocks(Struct, frozen=True, tag=True):
    """They follow; the sequence has so many tokens of its answer by now."""

    generated: int


class Stop(Struct, frozen=True, tag=True):
    """Asks a running sequence to stand still; the asker has its blocks before `first`, and so many tokens."""

    first: int
    tokens: int


class Stopped(Struct, frozen=True, tag=True):
    """It stands still: the tokens that were lacking. The blocks that were follow."""

    tokens: list[int]


class Release(Struct, frozen=True, tag=True):
    """All has come: the source is to forget the sequence."""


class Refused(Struct, frozen=True, tag=True):
    """The other side's last word."""

    why: str


Message = Attach | Attached | Fetch | Blocks | Stop | Stopped | Release | Refused
Kind = TypeVar("Kind", Attached, Blocks, Stopped)

_decoder = msgspec.msgpack.Decoder(Message)


class Wire:
    """One connection, seen from either side. Payloads that come may have `payload_limit_bytes`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, payload_limit_bytes: int
    ) -> None:
        self._reader, self._writer = reader, writer
        self._limit_bytes = payload_limit_bytes

    async def send(self, message: Message, payload: bytes | memoryview = b"") -> None:
        """Write a frame, and wait until there is room for another one. Raises TransferError."""
        header = msgspec.msgpack.encode(message)
        try:
            self._writer.write(_HEAD.pack(MAGIC, VERSION, len(header), len(payload)) + header)
            if payload:
                self._writer.write(payload)
            await self._writer.drain()
        except OSError as error:
            raise TransferError(f"the connection broke: {error}") from None

    async def receive(self) -> tuple[Message, bytes]:
        """Read a frame. Raises TransferError if none comes, or what comes is none."""
        try:
            head = await self._reader.readexactly(_HEAD.size)
            magic, version, header_bytes, payload_bytes = _HEAD.unpack(head)
            if magic != MAGIC or version != VERSION:
                raise TransferError("what came is no frame of this protocol: is this an engine's KV port?")
            if header_bytes > HEADER_LIMIT_BYTES or payload_bytes > self._limit_bytes:
                raise TransferError(f"a frame of {header_bytes} + {payload_bytes} bytes is more than agreed")
            message = _decoder.decode(await self._reader.readexactly(header_bytes))
            return message, await self._reader.readexactly(payload_bytes)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise TransferError(f"the connection broke: {error}") from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise TransferError(f"a frame cannot be read: {error}") from None

    async def ask(self, message: Message, kind: type[Kind]) -> tuple[Kind, bytes]:
        """Send, and return the answer if it is of this kind. Raises TransferError for any other."""
        await self.send(message)
        answer, payload = await self.receive()
        if isinstance(answer, Refused):
            raise TransferError(answer.why)
        if not isinstance(answer, kind):
            raise TransferError(f"asked for {kind.__name__}, got {type(answer).__name__}")
        return answer, payload

    def close(self) -> None:
        """Drop the connection, once what was written is on its way."""
        self._writer.close()
