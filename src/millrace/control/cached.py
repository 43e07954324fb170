"""What a replica's prefix cache holds, as its engine says: every block that enters or leaves it.

Source: the exact prefix indexes of llm-d (KV events of vLLM, speculative entries for 2 s) and of NVIDIA
Dynamo's router (which found that vLLM speaks of each copy of a block).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import takewhile

from millrace.control.clock import Clock
from millrace.core.blocks import link
from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange
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
    wrong.
    """

    __slots__ = (
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
        self._held: set[int] = set()  # the same chains
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
        held, prompt = self._held, request.blocks
        matched = len(list(takewhile(held.__contains__, prompt)))
        if sent := self._sent:
            self._expire()
            while matched < len(prompt) and (prompt[matched] in held or prompt[matched] in sent):
                matched += 1
        return min(matched * request.block_tokens, request.prompt_tokens)

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
                for key in change.keys:
                    self._remove(key)
            else:
                self.forget()

    def forget(self) -> None:
        """Drop everything: the cache is empty, or nothing is known of it any more."""
        for part in (self._chains, self._held, self._copies, self._orphans, self._waiting, self._sent):
            part.clear()

    @property
    def _room(self) -> int:
        return self._capacity - len(self._chains) - len(self._orphans) - len(self._sent)

    def _store(self, stored: BlocksStored) -> None:
        parent, room = stored.parent, self._room
        if parent is None and all(key in self._chains for key in stored.keys):
            return
        chain = stored.root if parent is None else self._chains.get(parent)
        for key, content in zip(stored.keys, stored.contents, strict=True):
            if key in self._chains or key in self._orphans:
                self._copies[key] = self._copies.get(key, 1) + 1
            elif room <= 0:
                return
            else:
                room -= 1
                self._take(key, content, parent, chain)
            parent, chain = key, self._chains.get(key)

    def _take(self, key: int, content: int, parent: int | None, chain: int | None) -> None:
        if chain is not None:
            self._adopt(key, link(chain, content))
        else:
            assert parent is not None, "without a parent a chain begins"
            self._orphans[key] = parent, content
            self._waiting.setdefault(parent, {})[key] = None

    def _adopt(self, key: int, chain: int) -> None:
        """Take in a block whose chain is known, and with it the orphans behind it."""
        found = [(key, chain)]
        for key, chain in found:
            self._chains[key] = chain
            self._held.add(chain)
            self._sent.pop(chain, None)
            if orphans := self._waiting.pop(key, None):
                found += [(orphan, link(chain, self._orphans.pop(orphan)[1])) for orphan in orphans]

    def _remove(self, key: int) -> None:
        copies = self._copies.pop(key, 1) - 1
        if copies > 1:
            self._copies[key] = copies
        if copies:
            return
        chain = self._chains.pop(key, None)
        if chain is not None:
            self._held.discard(chain)
            self._sent.pop(chain, None)
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
