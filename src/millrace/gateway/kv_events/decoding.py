"""Reads batches of KV events: those of vLLM, old (arrays) and new (maps), and those of SGLang.

Source: `vllm/distributed/kv_events.py` (arrays until June 2026, maps since), and SGLang's
`disaggregation/kv_events.py`, which has the same fields, but fewer of them.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Any

import msgspec

from millrace.core.blocks import contents_of, root_of
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange, CacheCleared, Medium

_FIELDS = {
    "BlockStored": (
        "block_hashes",
        "parent_block_hash",
        "token_ids",
        "block_size",
        "lora_id",
        "medium",
        "lora_name",
        "extra_keys",
        "group_idx",
        "kv_cache_spec_kind",
    ),
    "BlockRemoved": ("block_hashes", "medium", "group_idx"),
    "AllBlocksCleared": (),
}
"""The order of the fields where events are arrays, behind their tags."""

_WHOLE = (None, "full_attention", "mla_attention")
"""Kinds of layers whose blocks a prefix needs all of; of sliding windows it needs the last ones only."""

_MEDIA: dict[str, Medium] = {
    "DEVICE": "device",
    "CPU": "host",
    "CPU_PINNED": "host",
    "CPU_TIER1": "host",
    "CPU_TIER2": "disk",
    "DISK": "disk",
    "NVME": "disk",
    "STORAGE": "disk",
}
"""What engines call a medium, as NVIDIA Dynamo's router understands it."""

_STUMBLES = (
    msgspec.DecodeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""Whatever one can stumble over who takes bytes for a batch of events."""

_Fields = dict[str, Any]


class GarbageError(ValueError):
    """What came is no batch of KV events, so some change of the cache is lost."""


class Decoder:
    """Turns the batches of one engine into changes of its cache, in blocks of `block_tokens` tokens.

    What cannot help to predict what the engine has itself is left out, and counted by reason in `ignored`:
    blocks of other sizes, in shared memory, of unnamed adapters, or of layers that need no whole prefix.
    """

    def __init__(self, block_tokens: int) -> None:
        self.ignored: Counter[str] = Counter()
        self._block_tokens = block_tokens
        self._group: int | None = None

    def begin_anew(self) -> None:
        """Forget what this engine has said; another one may be in its place."""
        self._group = None

    def read(self, payload: bytes) -> tuple[CacheChange, ...]:
        """Return what a batch says, in order. Raises GarbageError."""
        try:
            batch = msgspec.msgpack.decode(payload)
            events = batch["events"] if isinstance(batch, dict) else batch[1]
            changes = [self._change(*_parts(event)) for event in events]
        except _STUMBLES as error:
            raise GarbageError(f"no batch of KV events: {error}") from None
        return tuple(change for change in changes if change is not None)

    def _change(self, tag: str, event: _Fields) -> CacheChange | None:
        if tag not in _FIELDS:
            return self._ignore("unknown_event")
        if tag == "AllBlocksCleared":
            return CacheCleared()
        medium = _medium(event.get("medium"))
        if medium is None or event.get("locality") == "REMOTE":
            return self._ignore("other_memory")
        if event.get("kv_cache_spec_kind") not in _WHOLE:
            return self._ignore("other_layers")
        group = event.get("group_idx")
        if tag == "BlockStored" and self._group is None:
            self._group = group
        if group is not None and group != self._group:
            return self._ignore("other_layers")
        keys = tuple(map(_key, event["block_hashes"]))
        return BlocksRemoved(keys, medium) if tag == "BlockRemoved" else self._stored(keys, medium, event)

    def _stored(self, keys: tuple[int, ...], medium: Medium, event: _Fields) -> BlocksStored | None:
        if medium != "device" and not event["token_ids"]:
            return BlocksStored(keys, (), medium=medium)  # vLLM has told what is in them before
        tokens, size, adapter = event["token_ids"], event["block_size"], event.get("lora_name")
        if size != self._block_tokens:
            return self._ignore("block_size")
        if len(tokens) != size * len(keys):
            raise GarbageError(f"{len(keys)} blocks of {size} tokens have {len(tokens)}")
        if adapter is None and event.get("lora_id") is not None:
            return self._ignore("unnamed_adapter")
        parent, extra = event["parent_block_hash"], event.get("extra_keys")
        if adapter is not None and not isinstance(adapter, str):
            adapter, extra = None, [[adapter]] * len(keys)  # SGLang's metadata, which has the same place
        if extra and len(extra) != len(keys):
            raise GarbageError(f"{len(keys)} blocks have {len(extra)} extra keys")
        return BlocksStored(
            keys,
            tuple(_contents(tokens, size, extra, adapter)),
            None if parent is None else _key(parent),
            root_of(adapter or ""),
            medium,
        )

    def _ignore(self, why: str) -> BlocksStored | None:
        self.ignored[why] += 1
        return None


def _parts(event: Any) -> tuple[str, _Fields]:
    """Return an event's tag and its fields by name."""
    if isinstance(event, dict):
        return event["type"], event
    tag, *values = event
    return tag, dict(zip(_FIELDS.get(tag, ()), values, strict=False))


def _medium(name: str | None) -> Medium | None:
    """Return where a block is; None for memory that others share."""
    if name is None or name.upper().startswith("GPU"):
        return "device"
    return _MEDIA.get(name.upper())


def _key(hash: int | bytes) -> int:
    """Return an engine's name of a block as 64 bits; vLLM itself shortens its bytes to the last eight."""
    if isinstance(hash, bytes) and hash:
        return int.from_bytes(hash[-8:], "big")
    if type(hash) is not int:
        raise GarbageError(f"a block is called {hash!r}")
    return hash & 0xFFFF_FFFF_FFFF_FFFF


def _contents(tokens: list[int], size: int, extra: list[Any] | None, adapter: str | None) -> list[int]:
    """Hash blocks; what an engine hashes beside their tokens (images, salts) sets them apart here too."""
    if not extra:
        return contents_of(tokens, size)
    salts = [_salt(keys, adapter) for keys in extra]
    starts = range(0, len(tokens), size)
    blocks = [tokens[start : start + size] for start in starts]
    return [contents_of(block, size, salt=salt)[0] for block, salt in zip(blocks, salts, strict=True)]


def _salt(keys: list[Any] | None, adapter: str | None) -> bytes:
    others = [key for key in keys or () if key != adapter]
    return blake2b(msgspec.msgpack.encode(others), digest_size=16).digest() if others else b""
