"""Asks an engine a question of the gateway's own, over the same pooled connections as everything else."""

from __future__ import annotations

import asyncio

from millrace.gateway.framing import Head
from millrace.gateway.upstream import Engine, EngineConnection

ANSWER_LIMIT_BYTES = 8 << 20


class ProbeError(Exception):
    """An engine gave no usable answer. `down`: it cannot be reached at all."""

    def __init__(self, why: str, *, down: bool = False) -> None:
        super().__init__(why)
        self.down = down


class Probe:
    """Waits for one small answer."""

    def __init__(self) -> None:
        self.connection: EngineConnection | None = None
        self.answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = b""

    def on_head(self, head: Head) -> Probe:
        """Take the body too."""
        self._status = head.status
        return self

    def on_whole(self, head: Head, body: bytes) -> None:
        """Take a complete answer."""
        self._status, self._body = head.status, body
        self.end(by_close=False)

    def framed(self, data: bytes, start: int) -> None:
        """Take one HTTP chunk."""
        self.payload(data[start:-2])

    def payload(self, payload: bytes) -> None:
        """Collect."""
        self._body += payload
        if len(self._body) > ANSWER_LIMIT_BYTES and self.connection is not None:
            self.connection.fail("garbage", f"more than {ANSWER_LIMIT_BYTES} bytes")

    def end(self, *, by_close: bool) -> None:
        """The answer is there."""
        if not self.answered.done():
            self.answered.set_result((self._status, self._body))

    def on_broken(self, reason: str, why: str, *, down: bool = False) -> None:
        """There will be no answer."""
        if not self.answered.done():
            self.answered.set_exception(ProbeError(why, down=down))


async def get(engine: Engine, path: bytes) -> tuple[int, bytes]:
    """GET a path; return status and body. Raises ProbeError."""
    return await _ask(engine, engine.request_line(b"GET", path) + b"accept: */*\r\n\r\n")


async def post(engine: Engine, path: bytes, body: bytes) -> tuple[int, bytes]:
    """POST JSON to a path; return status and body. Raises ProbeError."""
    head = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return await _ask(engine, engine.request_line(b"POST", path) + head + body)


async def _ask(engine: Engine, request: bytes) -> tuple[int, bytes]:
    probe = Probe()
    probe.connection = engine.send(probe, request)
    try:
        return await probe.answered
    finally:
        if probe.connection is not None:
            probe.connection.abort()
