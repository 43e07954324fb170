"""What engines are told when a KV cache goes from one to the other; bytes in, bytes out.

Source: the fields of vLLM's NIXL connector, `kv_transfer_params`, which llm-d's sidecar and vLLM's own proxy
fill in: the prompt is sent with one token to ask for, and what comes back goes along with the request to the
engine that answers. Our engine speaks the same, and with `do_remote_move` takes over answers under way.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from millrace.core.prompt import Kind

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


def moving(request_id: str, where: dict[str, Any]) -> bytes:
    """Return the field that lets an answer go on which is under way `where` an engine's entry says."""
    told = {name: where.get(name) for name in ("remote_engine_id", "remote_host", "remote_port")}
    return _field({"do_remote_move": True, "remote_request_id": request_id} | told)


def _field(params: dict[str, Any]) -> bytes:
    return b'"kv_transfer_params":%b' % msgspec.json.encode(params)
