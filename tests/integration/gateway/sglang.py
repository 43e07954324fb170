"""Engines that speak SGLang's bootstrap protocol to the letter, and refuse what it does not allow."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from millrace.testing.engine import FakeEngine
from millrace.testing.script import Heard, Script

PORT = 8998
Part = Literal["prefill", "decode"]
FIELDS = ("bootstrap_host", "bootstrap_port", "bootstrap_room")


class Rooms:
    """Where two engines meet. Each room is entered once by each of them, with the same request."""

    def __init__(self) -> None:
        self.bodies: dict[int, dict[Part, bytes]] = defaultdict(dict)
        self.computed: set[int] = set()
        self.changed = asyncio.Condition()

    async def enter(self, part: Part, heard: Heard) -> list[int]:
        """Take a request into its rooms; the one that computes prompts waits there for the other."""
        numbers = _several(heard.json["bootstrap_room"])
        async with self.changed:
            for number in numbers:
                assert 0 <= number < 1 << 63
                assert part not in self.bodies[number], "a room is entered once"
                self.bodies[number][part] = heard.body
            self.changed.notify_all()
            if part == "prefill":
                await self.changed.wait_for(lambda: all("decode" in self.bodies[one] for one in numbers))
        return numbers

    def forget(self, part: Part, numbers: list[int]) -> None:
        """An engine that breaks remembers nobody, and may be asked again over another connection."""
        for number in numbers:
            del self.bodies[number][part]

    async def hand_over(self, numbers: list[int]) -> None:
        """The prompts are computed, and their caches sent."""
        async with self.changed:
            self.computed |= set(numbers)
            self.changed.notify_all()

    async def receive(self, numbers: list[int]) -> None:
        """Wait for the caches."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.computed.issuperset(numbers))


class Sglang(FakeEngine):
    """One engine; a `script` with a status or a break is what it does once both have met."""

    def __init__(self, name: str, part: Part, rooms: Rooms, *, says: bool = True) -> None:
        super().__init__(name)
        self.part: Part = part
        self.rooms = rooms
        self.gate = self._admit
        card = {"id": "m", "object": "model", "owned_by": "sglang" if says else "us", "max_model_len": 8192}
        self.pages["/v1/models"] = page({"object": "list", "data": [card]})
        if says:
            info = {"disaggregation_mode": part, "disaggregation_bootstrap_port": PORT, "version": "0.5.9"}
            self.pages["/server_info"] = page(info | {"api_key": None, "internal_states": [{}]})

    async def _admit(self, heard: Heard) -> Script:
        told = [heard.json.get(field) for field in FIELDS]
        if None in told:
            return Script(raw=_error("Disaggregated request received without bootstrap room id", 400))
        assert set(_several(told[0])) == {"127.0.0.1"}
        assert set(_several(told[1])) == {PORT}
        if isinstance(prompts := heard.json.get("prompt"), list) and isinstance(prompts[0], str):
            assert all(isinstance(one, list) and len(one) == len(prompts) for one in told)
        script = self.script
        numbers = await self.rooms.enter(self.part, heard)
        if script.breaks:
            self.rooms.forget(self.part, numbers)
        if script.raw is not None or script.breaks or script.status >= 400:
            return script
        if self.part == "decode":
            await self.rooms.receive(numbers)
            return script
        await self.rooms.hand_over(numbers)
        return replace(script, tokens=1, pad_bytes=40)


@asynccontextmanager
async def engines(*parts: str, says: bool = True) -> AsyncIterator[tuple[Rooms, list[Sglang]]]:
    """Engines by their names, which begin with p or d for their part."""
    async with AsyncExitStack() as held:
        rooms = Rooms()
        started = [
            Sglang(name, "prefill" if name[0] == "p" else "decode", rooms, says=says) for name in parts
        ]
        for one in started:
            await held.enter_async_context(one)
        yield rooms, started


def missed(room: str = "7") -> str:
    """What an engine says if a KV cache did not come."""
    return f"Decode transfer failed for request rank=0 decode_req.req.bootstrap_room={room}"


def page(value: Any) -> bytes:
    """A raw answer."""
    body = msgspec.json.encode(value)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def whole_error(message: str, status: int) -> Script:
    """An answer that is an error."""
    return Script(raw=_error(message, status))


def streamed_error(message: str, code: int) -> Script:
    """A stream that is no more than an error."""
    event = b"data: %b\n\n" % msgspec.json.encode({"error": {"message": message, "code": code}})
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    done = b"data: [DONE]\n\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (event, done, b""))
    return Script(raw=head + chunks)


def _error(message: str, status: int) -> bytes:
    body = msgspec.json.encode({"object": "error", "message": message, "code": status})
    head = b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
