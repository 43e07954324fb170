"""The prefix tree against a model that is too simple to be wrong: a list of every beginning that is held."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millrace.core.prefix_tree import Node, PrefixTree, deepest
from millrace.testing import fakes

BLOCK_TOKENS = 4
REPLICAS = ("a", "b", "c")
Beginning = tuple[int, ...]

replicas = st.sampled_from(REPLICAS)
prompts = st.lists(st.sampled_from([1, 2]), max_size=7).map(
    lambda steps: tuple(hash(tuple(steps[: i + 1])) for i in range(len(steps)))
)


def beginnings(prompt: Beginning) -> list[Beginning]:
    return [prompt[: i + 1] for i in range(len(prompt))]


class Ledger:
    """Adds up the tokens of all nodes that are held, times their holders, from changes alone."""

    def __init__(self) -> None:
        self.total = 0

    def before(self, node: Node) -> None:
        self.total -= node.tokens * len(node.holders)

    def after(self, node: Node) -> None:
        self.total += node.tokens * len(node.holders)


class Tree(RuleBasedStateMachine):
    """Every rule does the same to both; what is forgotten is read from the tree, and must be the oldest."""

    budget_bytes = 1 << 20
    most_blocks: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.tree = PrefixTree(self.budget_bytes, most_blocks=self.most_blocks, watcher=self.ledger)
        self.used: dict[str, dict[Beginning, int]] = {name: {} for name in REPLICAS}
        self.last: dict[Beginning, int] = {}  # use by anybody
        self.uses = 0

    def held(self, prompt: Beginning) -> dict[str, int]:
        """How many blocks of a prompt each replica holds, as the tree says."""
        levels = self.tree.match(prompt)
        return {name: max((b for b, holders in levels if name in holders), default=0) for name in REPLICAS}

    def seen(self) -> set[Beginning]:
        return {one for known in self.used.values() for one in known}

    def forgotten(self) -> dict[str, dict[Beginning, int]]:
        """Take from the model what the tree has forgotten, and return it."""
        gone = {
            name: {one: use for one, use in known.items() if self.held(one)[name] < len(one)}
            for name, known in self.used.items()
        }
        for name, lost in gone.items():
            for one in lost:
                del self.used[name][one]
        return gone

    @rule(prompt=prompts, replica=replicas)
    def insert(self, prompt: Beginning, replica: str) -> None:
        self.uses += 1
        request = fakes.request(blocks=prompt, block_tokens=BLOCK_TOKENS)
        node = self.tree.insert(request, replica, float(self.uses))
        assert (node is None) == (prompt == ())
        self.used[replica] |= dict.fromkeys(beginnings(prompt), self.uses)
        self.last |= dict.fromkeys(beginnings(prompt), self.uses)
        self.check_oldest_go_for_all(self.forgotten())

    def check_oldest_go_for_all(self, gone: dict[str, dict[Beginning, int]]) -> None:
        lost, kept = {one for known in gone.values() for one in known}, self.seen()
        assert not lost & kept
        assert max((self.last[one] for one in lost), default=0) <= min(
            (self.last[one] for one in kept), default=self.uses
        )

    @rule(replica=replicas)
    def forget(self, replica: str) -> None:
        self.tree.forget(replica)
        self.used[replica].clear()
        assert replica not in self.tree.holders()

    @rule(replica=replicas, most=st.integers(0, 12))
    def trim(self, replica: str, most: int) -> None:
        before = self.tree.tokens_of(replica)
        self.tree.trim(replica, most * BLOCK_TOKENS)
        gone = self.forgotten()
        assert self.tree.tokens_of(replica) <= most * BLOCK_TOKENS or before == 0
        assert all(not lost for name, lost in gone.items() if name != replica)
        kept = self.used[replica].values()
        assert not kept or max(gone[replica].values(), default=0) <= min(kept)

    @precondition(lambda self: self.uses)
    @rule(ago=st.integers(0, 10))
    def expire(self, ago: int) -> None:
        self.tree.expire(float(self.uses - ago))
        gone = self.forgotten()
        self.check_oldest_go_for_all(gone)
        assert all(self.last[one] >= self.uses - ago for one in self.seen())
        assert all(self.last[one] < self.uses - ago for known in gone.values() for one in known)

    @rule(prompt=prompts, among=st.sets(replicas))
    def match(self, prompt: Beginning, among: set[str]) -> None:
        longest = {
            name: max((len(one) for one in beginnings(prompt) if one in known), default=0)
            for name, known in self.used.items()
        }
        assert self.held(prompt) == longest
        levels = self.tree.match(prompt)
        sizes = [blocks for blocks, _ in levels]
        assert sizes == sorted(set(sizes))
        blocks = max((longest[name] for name in among), default=0)
        best = sorted(name for name in among if longest[name] == blocks) if blocks else []
        assert deepest(levels, among) == (blocks, best)
        for size, holders in levels:
            uses = [self.used[name][prompt[:size]] for name in holders]
            assert uses == sorted(uses)

    @invariant()
    def counts_agree(self) -> None:
        assert {name: self.tree.tokens_of(name) for name in REPLICAS} == {
            name: len(known) * BLOCK_TOKENS for name, known in self.used.items()
        }
        assert self.tree.blocks == len(self.seen())
        assert self.ledger.total == sum(len(known) for known in self.used.values()) * BLOCK_TOKENS
        assert self.tree.held_bytes <= self.budget_bytes
        assert (self.tree.held_bytes == 0) == (not self.seen())
        assert self.most_blocks is None or self.tree.blocks <= self.most_blocks


class SmallTree(Tree):
    """In little memory, prompts are forgotten all the time."""

    budget_bytes = 4000


class ShortTree(Tree):
    """The blocks are limited, not the memory."""

    most_blocks = 9


BRIEF = settings(max_examples=40, stateful_step_count=30, deadline=None)
Tree.TestCase.settings = SmallTree.TestCase.settings = ShortTree.TestCase.settings = BRIEF
TestTree = Tree.TestCase
TestSmallTree = SmallTree.TestCase
TestShortTree = ShortTree.TestCase
