"""What engines are told when a KV cache goes from one to the other; bytes in, bytes out.

Source: the fields of vLLM's NIXL connector, `kv_transfer_params`, which llm-d's sidecar and vLLM's own proxy
fill in: the prompt is sent with one token to ask for, and what comes back goes along with the request to the
engine that answers. Our engine speaks the same, and with `do_remote_move` takes over answers under way.
SGLang's engines get the same request both at once, as its router does it: with the address where the one that
computes prompts is met, and a number that only the two of them have.
"""

from __future__ import annotations

import re
from secrets import randbits
from typing import Any

import msgspec
from msgspec import Raw, Struct

from millrace.core.prompt import Kind
from millrace.gateway.usage import data_of, events_in

PREFILLING = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
# What would make an answer of one token impossible, or a stream.
_LEFT_OUT = (
    "stream_options",
    "min_tokens",
    "max_completion_tokens",
    "return_token_ids",
    "logprobs",
    "top_logprobs",
)


_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
ROOM_BITS = 63
SEVERAL = 1024
MISSED = b"bootstrap_room"
"""What SGLang's errors mention if a KV cache did not come across: they name the room."""


class Bootstrap(Struct, frozen=True):
    """Where an engine of SGLang that computes prompts is met; without a port, others have it."""

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> tuple[str, Bootstrap]:
        """Read `NAME=HOST:PORT`. Raises ValueError."""
        name, _, address = text.partition("=")
        found = _ADDRESS.fullmatch(address)
        if not name or found is None or not 0 < int(found["port"]) <= 65535:
            raise ValueError(
                f"bootstraps: cannot read {text!r}; write NAME=HOST:PORT, such as p=10.0.0.1:8998"
            )
        return name, cls(found["host"], int(found["port"]))


class _Batch(Struct):
    prompt: Raw = Raw()
    n: Any = None


class _Said(Struct):
    error: Any = None


class _Answered(Struct):
    kv_transfer_params: dict[str, Any] | None = None


def prompt_only(body: bytes, kind: Kind) -> bytes | None:
    """Return the body that has only its prompt computed, for another engine; None where nobody knows how."""
    if kind not in ("chat", "text"):
        return None
    fields: dict[str, Any] = msgspec.json.decode(body)
    fields = {name: value for name, value in fields.items() if name not in _LEFT_OUT}
    one = {"max_completion_tokens": 1} if kind == "chat" else {}
    more = {"stream": False, "max_tokens": 1, "kv_transfer_params": PREFILLING}
    return msgspec.json.encode(fields | one | more)


def handed(answer: bytes) -> bytes | None:
    """Return the field that tells the other engine where the prompt's cache is; None if nobody said."""
    try:
        params = msgspec.json.decode(answer, type=_Answered).kv_transfer_params
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _field(params) if params else None


def meeting_at(where: Bootstrap, body: bytes, kind: Kind) -> bytes:
    """Return the fields that let two engines of SGLang meet: lists of them for requests that are several."""
    count = _count(body, kind)
    rooms = [randbits(ROOM_BITS) for _ in range(count or 1)]
    told: tuple[Any, Any, Any] = where.host, where.port, rooms[0]
    if count is not None:
        told = [where.host] * count, [where.port] * count, rooms
    return b'"bootstrap_host":%b,"bootstrap_port":%b,"bootstrap_room":%b' % tuple(
        map(msgspec.json.encode, told)
    )


def _count(body: bytes, kind: Kind) -> int | None:
    """Return how many requests SGLang's router takes this for, None for a single one.

    Of more answers to a chat than anybody wants the engines number the rooms themselves.
    """
    asked = msgspec.json.decode(body, type=_Batch)
    if kind == "chat":
        return asked.n if type(asked.n) is int and 1 < asked.n <= SEVERAL else None
    if bytes(asked.prompt)[:1] != b"[":
        return None
    prompts = msgspec.json.decode(asked.prompt, type=list[Raw])
    return len(prompts) if prompts and bytes(prompts[0])[:1] in (b'"', b"[") else None


def refused(events: bytes) -> bytes:
    """Return the first event that says what went wrong, unless the request did; empty if none does."""
    for event in events_in(events):
        try:
            error = msgspec.json.decode(data_of(event), type=_Said).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        code = error.get("code") if isinstance(error, dict) else None
        if error is not None and not (isinstance(code, int) and 400 <= code < 500):
            return event
    return b""


def moving(request_id: str, where: dict[str, Any]) -> bytes:
    """Return the field that lets an answer go on which is under way `where` an engine's entry says."""
    told = {name: where.get(name) for name in ("remote_engine_id", "remote_host", "remote_port")}
    return _field({"do_remote_move": True, "remote_request_id": request_id} | told)


def _field(params: dict[str, Any]) -> bytes:
    return b'"kv_transfer_params":%b' % msgspec.json.encode(params)
