"""Boosted trees as plain numbers, and a function in Python that adds up their leaves.

One row is evaluated at a time. Walking nodes in Python takes about twice as long as LightGBM's own call; the
same trees written out as expressions take less than it, as long as they are no more than a few hundred
(`benchmarks/length_prediction.py` measures all).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, isfinite

from msgspec import Struct

from millrace.core.answer_length import CLASSES
from millrace.core.lexical import FEATURES

Scores = Callable[[Sequence[int]], tuple[float, ...]]
MOST_DEEP = 32  # what a parser takes in brackets


class Tree(Struct, frozen=True, array_like=True):
    """Nodes by number, the first the root; those with a `feature` of -1 are leaves and have a `value`.

    Who has at most the `threshold` goes to the `left`, everybody else to the `right`; children have higher
    numbers than their parent.
    """

    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    value: list[float]

    def __post_init__(self) -> None:
        nodes = len(self.feature)
        columns = (self.threshold, self.left, self.right, self.value)
        if not nodes or any(len(column) != nodes for column in columns):
            raise ValueError("trees: a tree's columns must have one entry for each of its nodes")
        for node, feature in enumerate(self.feature):
            children = (self.left[node], self.right[node])
            if not -1 <= feature < len(FEATURES) or not isfinite(self.threshold[node] + self.value[node]):
                raise ValueError(f"trees: node {node} asks for feature {feature}; there are {len(FEATURES)}")
            if feature >= 0 and not all(node < child < nodes for child in children):
                raise ValueError(f"trees: node {node} leads to {children}; children come after their parent")


def shares(scores: Sequence[float]) -> list[float]:
    """Turn the sums of the classes' trees into probabilities."""
    most = max(scores)
    raised = [exp(score - most) for score in scores]
    total = sum(raised)
    return [one / total for one in raised]


def compiled(trees: Sequence[Tree]) -> Scores:
    """Return a function from features to the sum of each class; trees take turns at the classes.

    Raises ValueError for trees deeper than Python's parser takes.
    """
    if len(trees) % len(CLASSES):
        raise ValueError(f"trees: there are {len(trees)}; each of {len(CLASSES)} classes has as many")
    lines = ["def scores(f):"]
    for place in range(len(CLASSES)):
        lines.append(f"    c{place} = 0.0")
        lines += [f"    c{place} += {_expression(tree, 0, 0)}" for tree in trees[place :: len(CLASSES)]]
    lines.append(f"    return {', '.join(f'c{place}' for place in range(len(CLASSES)))},")
    made: dict[str, Scores] = {}
    exec("\n".join(lines), made)  # of checked numbers only, never of text from a file
    return made["scores"]


def _expression(tree: Tree, node: int, depth: int) -> str:
    if depth > MOST_DEEP:
        raise ValueError(f"trees: one is deeper than {MOST_DEEP}; train with fewer leaves")
    feature = tree.feature[node]
    if feature < 0:
        return repr(float(tree.value[node]))
    left = _expression(tree, tree.left[node], depth + 1)
    right = _expression(tree, tree.right[node], depth + 1)
    return f"({left} if f[{feature:d}] <= {float(tree.threshold[node])!r} else {right})"
