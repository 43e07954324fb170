"""Chained hashes of prompt blocks: two prompts share k blocks when their first k hashes are equal."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate


def chain_tokens(
    tokens: Sequence[int], block_tokens: int, *, parent: int = 0, digest_bytes: int = 16
) -> list[int]:
    """Hash every full block of `tokens`, each together with the hash of the block before it.

    `parent` is the hash of the block in front, to continue a chain. 16-byte digests are for caches,
    where a collision would mix up answers; 8 bytes are enough for a routing hint.
    """
    hashes = []
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        block = array("q", tokens[start : start + block_tokens]).tobytes()
        digest = blake2b(block, digest_size=digest_bytes, key=parent.to_bytes(16, "big")).digest()
        parent = int.from_bytes(digest, "big")
        hashes.append(parent)
    return hashes


def chain_bytes(text: bytes, block_bytes: int, *, limit: int = 64) -> tuple[int, ...]:
    """Hash the first `limit` full blocks of `text` into a chain of 63-bit numbers, free of any model."""
    hashes, parent = [], b""
    for start in range(0, min(len(text) // block_bytes, limit) * block_bytes, block_bytes):
        parent = blake2b(text[start : start + block_bytes], digest_size=8, key=parent).digest()
        hashes.append(int.from_bytes(parent, "big") >> 1)
    return tuple(hashes)


def contents_of(tokens: Sequence[int], block_tokens: int, *, salt: bytes = b"") -> list[int]:
    """Hash every full block of `tokens` by itself, into 63-bit numbers that `link` chains.

    Hashing in two steps lets one tell what is in a block without knowing what is in front of it. A `salt`
    of up to 64 bytes sets blocks apart that hold more than their tokens.
    """
    hashes = []
    for start in range(0, len(tokens) - block_tokens + 1, block_tokens):
        block = array("q", tokens[start : start + block_tokens]).tobytes()
        hashes.append(_number(blake2b(block, digest_size=8, key=salt)))
    return hashes


def link(parent: int, content: int) -> int:
    """Return the chained hash of a block: of what is in it, and of the chain that ends in front of it."""
    return _number(blake2b(b"%d %d" % (parent, content), digest_size=8))


def chain_contents(contents: Iterable[int], root: int = 0) -> tuple[int, ...]:
    """Chain the hashes of blocks; `root` stands for what comes before the first one."""
    return tuple(accumulate(contents, link, initial=root))[1:]


def root_of(adapter: str) -> int:
    """Return where the chains of an adapter's prompts begin: their blocks are no other adapter's."""
    return _number(blake2b(adapter.encode(), digest_size=8)) if adapter else 0


def _number(digest: blake2b) -> int:
    return int.from_bytes(digest.digest(), "big") >> 1


def in_common(chain: Sequence[int], other: Sequence[int], start: int) -> int:
    """Return how many blocks of `chain` are those of `other` from `start` on, where the first one is."""
    rest = other[start : start + len(chain)]
    least, most = 1, len(rest)
    if chain[:most] == rest:
        return most
    while most - least > 1:
        middle = (least + most) // 2
        if chain[least:middle] == rest[least:middle]:
            least = middle
        else:
            most = middle
    return least
