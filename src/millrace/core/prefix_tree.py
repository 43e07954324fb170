"""Which replicas hold which beginnings of prompts: a radix tree over chained block hashes, in a byte budget.

Source: the radix tree of SGLang (Zheng et al., NeurIPS 2024) and of its router, over blocks instead of
characters, and with the replicas that hold a node as its tenants.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from typing import NamedTuple, Protocol

from millrace.core.request import Request

# Measured with tracemalloc on CPython 3.11: a node with its places in its parent and in the order of use,
# a hash that nothing else refers to with its place in a node, and a holder of a node.
NODE_BYTES = 520
BLOCK_BYTES = 44
HOLDER_BYTES = 170


class Node:
    """Blocks that are held together: those up to the block `end` of every prompt that goes through here.

    `holders` are the replicas that hold them, and thereby all in front of them, with the number of their last
    use by each; the one sent last is at the end.
    """

    __slots__ = ("block_tokens", "blocks", "children", "end", "holders", "parent", "used_s")

    def __init__(self, parent: Node | None, blocks: tuple[int, ...], block_tokens: int) -> None:
        self.parent = parent
        self.blocks = blocks
        self.end: int = len(blocks) + (parent.end if parent else 0)
        self.block_tokens = block_tokens
        self.children: dict[int, Node] = {}
        self.holders: dict[str, int] = {}
        self.used_s = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of its own blocks, without those in front of them."""
        return len(self.blocks) * self.block_tokens


class Level(NamedTuple):
    """The first `blocks` blocks of a prompt, and the replicas that hold them, the one sent last at the end.

    The holders are those of the tree itself: whoever asks only reads them.
    """

    blocks: int
    holders: dict[str, int]


class Watcher(Protocol):
    """Somebody who adds up what replicas hold, and so must know when that changes."""

    def before(self, node: Node) -> None:
        """Note that the blocks or the holders of a node, which has been there, are about to change."""

    def after(self, node: Node) -> None:
        """Note that they have changed."""


class PrefixTree:
    """Prompts and the replicas that they were sent to; what was used longest ago is forgotten first.

    A replica that holds a node holds all nodes in front of it. Nodes are forgotten by all their holders when
    the memory is full or their time is over, and by one holder when that one is trimmed.
    """

    def __init__(
        self, budget_bytes: int, *, most_blocks: int | None = None, watcher: Watcher | None = None
    ) -> None:
        self.held_bytes = 0
        self.blocks = 0
        self._budget_bytes = budget_bytes
        self._most_blocks = most_blocks
        self._watcher = watcher
        self._root = Node(None, (), 1)
        self._order: OrderedDict[Node, None] = OrderedDict()  # used longest ago first
        self._held: dict[str, set[Node]] = {}
        self._tokens: dict[str, int] = {}
        self._uses = 0

    def match(self, prompt: tuple[int, ...]) -> list[Level]:
        """Return what is held of a prompt: each level is longer than the one before it, and held by fewer.

        The holders of the last level are all that hold any of the prompt's longest known beginning.
        """
        path, matched = self._walk(prompt)
        levels = [Level(node.end, node.holders) for node in path]
        if levels:
            levels[-1] = Level(matched, path[-1].holders)
        return levels

    def insert(self, request: Request, replica: str, now_s: float) -> Node | None:
        """Note that the replica holds the prompt from now; return where it ends, None if it has no blocks."""
        prompt = request.blocks
        if not prompt:
            return None
        path, matched = self._walk(prompt)
        if path and matched < path[-1].end:
            path[-1] = self._part(path[-1], matched)
        if matched < len(prompt):
            path.append(self._grow(path[-1] if path else self._root, prompt[matched:], request.block_tokens))
        self._uses += 1
        for node in reversed(path):  # what is in front is used after what is behind it
            node.used_s = now_s
            self._order.move_to_end(node)
            self._hold(node, replica)
        self._fit()
        return path[-1]

    def forget(self, replica: str) -> None:
        """Note that a replica holds nothing any more."""
        self.trim(replica, 0)
        self._held.pop(replica, None)
        self._tokens.pop(replica, None)

    def trim(self, replica: str, most_tokens: int) -> None:
        """Let a replica forget what it was sent longest ago, until it holds at most so many tokens."""
        if self.tokens_of(replica) <= most_tokens:
            return
        for node in sorted(self._held[replica], key=lambda node: (node.holders[replica], -node.end)):
            if self._tokens[replica] <= most_tokens:
                break
            self._drop(node, replica)

    def expire(self, before_s: float) -> None:
        """Forget what was last used before this moment."""
        while self._order and (oldest := next(iter(self._order))).used_s < before_s:
            self._remove(oldest)

    def tokens_of(self, replica: str) -> int:
        """Return how many tokens a replica is believed to hold."""
        return self._tokens.get(replica, 0)

    def holders(self) -> list[str]:
        """Return the replicas that hold something, or did."""
        return list(self._held)

    def _walk(self, prompt: tuple[int, ...]) -> tuple[list[Node], int]:
        """Return the nodes on the way of a prompt, and how many of its blocks they have."""
        path: list[Node] = []
        children, matched, size = self._root.children, 0, len(prompt)
        while matched < size and (node := children.get(prompt[matched])) is not None:
            path.append(node)
            end = node.end
            if end > size or node.blocks[-1] != prompt[end - 1]:
                matched += _shared(node.blocks, prompt, matched)
                break
            children, matched = node.children, end
        return path, matched

    def _grow(self, parent: Node, blocks: tuple[int, ...], block_tokens: int) -> Node:
        node = Node(parent, blocks, block_tokens)
        parent.children[blocks[0]] = node
        self._order[node] = None
        self.blocks += len(blocks)
        self.held_bytes += NODE_BYTES + BLOCK_BYTES * len(blocks)
        return node

    def _part(self, behind: Node, matched: int) -> Node:
        """Part a node where `matched` blocks of a prompt end; return its front, which is new."""
        assert behind.parent is not None
        size = matched - behind.end + len(behind.blocks)
        if self._watcher:
            self._watcher.before(behind)
        front = self._grow(behind.parent, behind.blocks[:size], behind.block_tokens)
        behind.blocks = behind.blocks[size:]
        self.blocks -= size
        self.held_bytes -= BLOCK_BYTES * size
        behind.parent, front.children[behind.blocks[0]] = front, behind
        front.holders = dict(behind.holders)
        self.held_bytes += HOLDER_BYTES * len(front.holders)
        for holder in front.holders:
            self._held[holder].add(front)
        if self._watcher:
            self._watcher.after(behind)
            self._watcher.after(front)
        return front

    def _hold(self, node: Node, replica: str) -> None:
        """Note that the replica holds the node, and is the last that was sent it."""
        holders = node.holders
        if replica in holders:
            del holders[replica]
            holders[replica] = self._uses
            return
        if self._watcher:
            self._watcher.before(node)
        holders[replica] = self._uses
        self._held.setdefault(replica, set()).add(node)
        self._tokens[replica] = self._tokens.get(replica, 0) + node.tokens
        self.held_bytes += HOLDER_BYTES
        if self._watcher:
            self._watcher.after(node)

    def _drop(self, node: Node, replica: str) -> None:
        """Note that the replica does not hold the node any more, nor anything behind it."""
        if self._watcher:
            self._watcher.before(node)
        del node.holders[replica]
        self._held[replica].remove(node)
        self._tokens[replica] -= node.tokens
        self.held_bytes -= HOLDER_BYTES
        if self._watcher:
            self._watcher.after(node)
        if not node.holders:
            self._unlink(node)

    def _remove(self, node: Node) -> None:
        """Let all holders of a node drop it."""
        for holder in list(node.holders):
            self._drop(node, holder)

    def _unlink(self, node: Node) -> None:
        """Forget a node that nobody holds, and its blocks even for those who still refer to it."""
        assert node.parent is not None
        del node.parent.children[node.blocks[0]], self._order[node]
        self.blocks -= len(node.blocks)
        self.held_bytes -= NODE_BYTES + BLOCK_BYTES * len(node.blocks)
        node.blocks, node.parent = (), None

    def _fit(self) -> None:
        while self.held_bytes > self._budget_bytes or self._holds_too_many():
            self._remove(next(iter(self._order)))

    def _holds_too_many(self) -> bool:
        return self._most_blocks is not None and self.blocks > self._most_blocks


def deepest(levels: list[Level], among: Container[str]) -> tuple[int, list[str]]:
    """Return how much of a prompt any of these replicas holds, in blocks, and those that do, by id.

    That is 0 blocks and nobody if none of them holds any.
    """
    for blocks, holders in reversed(levels):
        if found := [holder for holder in holders if holder in among]:
            return blocks, sorted(found)
    return 0, []


def _shared(segment: tuple[int, ...], prompt: tuple[int, ...], at: int) -> int:
    """Return how many blocks of a segment the prompt has from there on, at least the first, by halving.

    That is right because a chained hash stands for all blocks in front of it too.
    """
    least, most = 1, min(len(segment), len(prompt) - at)
    while least < most:
        middle = (least + most + 1) // 2
        if segment[middle - 1] == prompt[at + middle - 1]:
            least = middle
        else:
            most = middle - 1
    return least
