"""What a replica's prefix cache holds, as its engine says: every block that enters or leaves it.

Source: the exact prefix indexes of llm-d (KV events of vLLM, speculative entries for 2 s) and of NVIDIA
Dynamo's router (which found that vLLM speaks of each copy of a block).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice, takewhile, zip_longest

from millrace.control.clock import Clock
from millrace.core.blocks import link
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange, Medium
from millrace.core.request import Request

SENT_TTL_S = 2.0  # llm-d's: by then an engine has spoken of what it was sent
ENTRY_BYTES = 220  # a block and its names, measured with tracemalloc on CPython 3.11


class CachedPrefixes:
    """The blocks in one engine's cache, by the engine's own names for them and by their chains.

    A block counts for a prompt only while all blocks in front of it are there too. One whose parent was
    never heard of waits for it as an orphan: its chain cannot be told before. An engine may hold a block
    more than once, and then it leaves as often as it came. But known blocks that are told again from a
    prompt's first on were only found, as vLLM says for requests with `kv_cache_report_mode` "full": taken
    for copies, they would be believed in for ever. What was sent counts as there for `ttl_s`, or until the
    engine says that it left. Beyond its budget the index takes in no more: it then knows less, and nothing
    wrong. A block on another medium than the device is noted if its chain is known, or follows from what is
    said; there an engine has each block once.
    """

    __slots__ = (
        "_below",
        "_capacity",
        "_chains",
        "_clock",
        "_copies",
        "_held",
        "_orphans",
        "_sent",
        "_ttl_s",
        "_waiting",
    )

    def __init__(self, budget_bytes: int, *, clock: Clock, ttl_s: float = SENT_TTL_S) -> None:
        self._capacity, self._clock, self._ttl_s = budget_bytes // ENTRY_BYTES, clock, ttl_s
        self._chains: dict[int, int] = {}  # of blocks by name, from which those behind them go on
        self._held: set[int] = set()  # those of them that are on the device
        self._below: dict[Medium, set[int]] = {"host": set(), "disk": set()}  # and those elsewhere
        self._copies: dict[int, int] = {}  # of blocks by name, where there are several
        self._orphans: dict[int, tuple[int, int]] = {}  # the parent and the content of blocks by name
        self._waiting: dict[int, dict[int, None]] = {}  # the orphans of each parent
        self._sent: OrderedDict[int, float] = OrderedDict()  # chains, and until when they are believed

    @property
    def held_bytes(self) -> int:
        """Memory the index takes now."""
        return (self._capacity - self._room) * ENTRY_BYTES

    def matched_tokens(self, request: Request) -> int:
        """Return how many leading prompt tokens are there, or were just sent.

        Block by block: a chain may have lost one in its middle, and most replicas lack the first already.
        """
        return min(self._matched(request.blocks) * request.block_tokens, request.prompt_tokens)

    def matched_by_medium(self, request: Request) -> tuple[int, int, int]:
        """Return these tokens, and how many there are in a row behind them in host memory, and then on disk.

        That is the order in which engines look for a prompt (NVIDIA Dynamo, vLLM's offloading).
        """
        prompt, size, most = request.blocks, request.block_tokens, request.prompt_tokens
        device = self._matched(prompt)
        host = device + _in_a_row(self._below["host"], prompt, device)
        disk = host + _in_a_row(self._below["disk"], prompt, host)
        first, second, third = (min(end * size, most) for end in (device, host, disk))
        return first, second - first, third - second

    def _matched(self, prompt: tuple[int, ...]) -> int:
        held = self._held
        matched = len(list(takewhile(held.__contains__, prompt)))
        if sent := self._sent:
            self._expire()
            while matched < len(prompt) and (prompt[matched] in held or prompt[matched] in sent):
                matched += 1
        return matched

    def remember(self, request: Request) -> int:
        """Note that the prompt was sent, and return how many of its leading tokens are there already."""
        matched = self.matched_tokens(request)
        sent, until_s, room = self._sent, self._clock.now_s + self._ttl_s, self._room
        for block in request.blocks:
            if block in self._held:
                continue
            if block not in sent:
                if room <= 0:
                    break
                room -= 1
            sent[block] = until_s
            sent.move_to_end(block)
        return matched

    def note(self, changes: Iterable[CacheChange]) -> None:
        """Follow what happened to the cache, in order."""
        for change in changes:
            if isinstance(change, BlocksStored):
                self._store(change)
            elif isinstance(change, BlocksRemoved):
                remove = self._remove if change.medium == "device" else self._remove_below
                for key in change.keys:
                    remove(key, change.medium)
            else:
                self.forget()

    def forget(self) -> None:
        """Drop everything: the cache is empty, or nothing is known of it any more."""
        self._held.clear()
        for below in self._below.values():
            below.clear()
        for part in (self._chains, self._copies, self._orphans, self._waiting, self._sent):
            part.clear()

    @property
    def _room(self) -> int:
        known = len(self._chains) + len(self._orphans) + len(self._sent)
        return self._capacity - known - sum(map(len, self._below.values()))

    def _store(self, stored: BlocksStored) -> None:
        if stored.medium != "device":
            self._store_below(stored)
            return
        parent, room, held = stored.parent, self._room, self._held
        if parent is None and all(self._chains.get(key) in held for key in stored.keys):
            return
        chain = stored.root if parent is None else self._chains.get(parent)
        for key, content in zip(stored.keys, stored.contents, strict=True):
            known = self._chains.get(key)
            if known is not None and known not in held:
                held.add(known)  # it was elsewhere
                self._sent.pop(known, None)
            elif known is not None or key in self._orphans:
                self._copies[key] = self._copies.get(key, 1) + 1
            elif room <= 0:
                return
            else:
                room -= 1
                self._take(key, content, parent, chain)
            parent, chain = key, self._chains.get(key)

    def _store_below(self, stored: BlocksStored) -> None:
        below, front = self._below[stored.medium], stored.parent
        chain = stored.root if front is None else self._chains.get(front)
        for key, content in zip_longest(stored.keys, stored.contents):
            known = self._chains.get(key)
            if known is None and content is not None and chain is not None and key not in self._orphans:
                known = link(chain, content) if self._room > 1 else None
                if known is not None:
                    self._hold(self._name(key, known)[1:])
            if known is not None and self._room > 0:
                below.add(known)
            chain = known

    def _take(self, key: int, content: int, parent: int | None, chain: int | None) -> None:
        if chain is not None:
            self._adopt(key, link(chain, content))
        else:
            assert parent is not None, "without a parent a chain begins"
            self._orphans[key] = parent, content
            self._waiting.setdefault(parent, {})[key] = None

    def _adopt(self, key: int, chain: int) -> None:
        """Take in a block whose chain is known, and with it the orphans behind it."""
        self._hold(self._name(key, chain))

    def _hold(self, found: list[tuple[int, int]]) -> None:
        for _, chain in found:
            self._held.add(chain)
            self._sent.pop(chain, None)

    def _name(self, key: int, chain: int) -> list[tuple[int, int]]:
        """Know a block by its chain; return both, and then those of the orphans behind it."""
        found = [(key, chain)]
        for key, chain in found:
            self._chains[key] = chain
            if orphans := self._waiting.pop(key, None):
                found += [(orphan, link(chain, self._orphans.pop(orphan)[1])) for orphan in orphans]
        return found

    def _remove_below(self, key: int, medium: Medium) -> None:
        chain = self._chains.get(key)
        if chain is not None:
            self._below[medium].discard(chain)
            self._forget_name(key, chain)

    def _forget_name(self, key: int, chain: int) -> None:
        if chain not in self._held and not any(chain in below for below in self._below.values()):
            del self._chains[key]

    def _remove(self, key: int, medium: Medium) -> None:
        copies = self._copies.pop(key, 1) - 1
        if copies > 1:
            self._copies[key] = copies
        if copies:
            return
        chain = self._chains.get(key)
        if chain is not None:
            self._held.discard(chain)
            self._sent.pop(chain, None)
            self._forget_name(key, chain)
        elif key in self._orphans:
            parent, _ = self._orphans.pop(key)
            del self._waiting[parent][key]
            if not self._waiting[parent]:
                del self._waiting[parent]

    def _expire(self) -> None:
        """Believe no longer in what was sent and never spoken of."""
        sent, now_s = self._sent, self._clock.now_s
        while sent and next(iter(sent.values())) <= now_s:
            sent.popitem(last=False)


def _in_a_row(held: set[int], prompt: tuple[int, ...], start: int) -> int:
    """Return how many blocks in a row are held, from that place on."""
    return sum(1 for _ in takewhile(held.__contains__, islice(prompt, start, None))) if held else 0
