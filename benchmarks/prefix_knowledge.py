"""What it costs to know what engines hold: processor time for a block that enters, leaves or is looked for.

python benchmarks/prefix_knowledge.py
"""

from __future__ import annotations

import gc
import platform
import tracemalloc
from collections.abc import Callable
from time import process_time

import msgspec

from millrace.control.cached import ENTRY_BYTES, CachedPrefixes
from millrace.control.clock import Clock
from millrace.control.prefixes import SentPrefixes
from millrace.core.blocks import chain_contents, contents_of
from millrace.core.draw import draw_below
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange
from millrace.core.request import Request
from millrace.gateway.kv_events.decoding import Decoder

PROMPTS, BLOCKS, SIZE = 500, 100, 16
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    payloads = [_payload(prompt) for prompt in range(PROMPTS)]
    decoder = Decoder(SIZE)
    stored = [decoder.read(payload) for payload in payloads]
    removed = [(BlocksRemoved(change.keys),) for (change,) in stored if isinstance(change, BlocksStored)]
    tokens = _tokens(0)
    asked = Request(
        id="q",
        model="m",
        prompt_tokens=len(tokens),
        max_tokens=1,
        blocks=chain_contents(contents_of(tokens, SIZE)),
        block_tokens=SIZE,
    )
    print(f"Python {platform.python_version()}, prompts of {BLOCKS} blocks of {SIZE} tokens")
    _print("read a stored block", _best(lambda: [decoder.read(one) for one in payloads]), "us")
    _print("enter a block", _best(lambda: _filled(stored)), "us")
    index = _filled(stored)
    _print("remove a block", _best(lambda: _note(index, removed), once=True), "us")
    _print("hash a prompt's block", _best(lambda: [_hash(tokens) for _ in range(PROMPTS)]), "us")
    index, sent = _filled(stored), SentPrefixes(1 << 30)
    sent.remember(asked)
    each = 1 / BLOCKS
    _print("find a prompt that is there, events", _best(lambda: _ask(index, asked)) / each, "us")
    _print("find a prompt that is there, sent", _best(lambda: _ask(sent, asked)) / each, "us")
    print(f"{'memory of a block':40} {_bytes(payloads):8.0f} bytes")


def _tokens(prompt: int) -> list[int]:
    return [draw_below(128_000, "token", prompt, at) for at in range(BLOCKS * SIZE)]


def _payload(prompt: int) -> bytes:
    """One batch in vLLM's words, all of a prompt at once."""
    names = list(range(2**62 + prompt * BLOCKS, 2**62 + (prompt + 1) * BLOCKS))
    event = {"type": "BlockStored", "block_hashes": names, "parent_block_hash": None}
    return msgspec.msgpack.encode([1.5, [event | {"token_ids": _tokens(prompt), "block_size": SIZE}], 0])


def _hash(tokens: list[int]) -> tuple[int, ...]:
    return chain_contents(contents_of(tokens, SIZE))


def _note(index: CachedPrefixes, batches: list[tuple[BlocksRemoved]] | list[tuple[CacheChange, ...]]) -> None:
    for batch in batches:
        index.note(batch)


def _filled(batches: list[tuple[CacheChange, ...]]) -> CachedPrefixes:
    index = CachedPrefixes(1 << 30, clock=Clock())
    _note(index, batches)
    return index


def _ask(index: CachedPrefixes | SentPrefixes, asked: Request) -> None:
    for _ in range(PROMPTS):
        assert index.matched_tokens(asked) == asked.prompt_tokens


def _best(work: Callable[[], object], *, once: bool = False) -> float:
    """Processor time for each block of all prompts, in microseconds; the best of several rounds."""
    gc.collect()
    times = []
    for _ in range(1 if once else ROUNDS):
        start_s = process_time()
        work()
        times.append(process_time() - start_s)
    return min(times) / (PROMPTS * BLOCKS) * 1e6


def _bytes(payloads: list[bytes]) -> float:
    gc.collect()
    tracemalloc.start()
    index = CachedPrefixes(1 << 30, clock=Clock())
    decoder = Decoder(SIZE)
    for payload in payloads:
        index.note(decoder.read(payload))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / (index.held_bytes / ENTRY_BYTES)


def _print(what: str, value: float, unit: str) -> None:
    print(f"{what:40} {value:8.2f} {unit}")


if __name__ == "__main__":
    main()
