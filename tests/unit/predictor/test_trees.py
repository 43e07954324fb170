"""Boosted trees evaluated three ways give the same answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.core.lexical import FEATURES
from millrace.predictor.document import Document
from millrace.predictor.onnx_export import to_onnx
from millrace.predictor.prediction import Predictor
from millrace.predictor.quality import Quality
from millrace.predictor.trees import MOST_DEEP, Tree, compiled, shares

QUALITY = Quality(
    trained=1,
    calibrated=1,
    held_out=1,
    class_shares=(0.5, 0.3, 0.2),
    accuracy=0.5,
    coverage=0.9,
    classes_per_answer=1.5,
    rank_correlation=0.5,
    pairs_in_order=0.8,
)
LEAF = Tree([-1], [0.0], [0], [0], [0.25])
NUMBERS = st.lists(st.integers(0, 300), min_size=len(FEATURES), max_size=len(FEATURES))


def walked(tree: Tree, numbers: list[int]) -> float:
    """Find a row's leaf, step by step."""
    node = 0
    while tree.feature[node] >= 0:
        left = numbers[tree.feature[node]] <= tree.threshold[node]
        node = tree.left[node] if left else tree.right[node]
    return tree.value[node]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Trees of up to seven nodes, split anywhere, at halves so that 32 bits hold every threshold."""
    tree: tuple[list[Any], ...] = ([], [], [], [], [])
    places, made = 1, 0
    while made < places:
        split = places < 6 and draw(st.booleans())
        feature = draw(st.integers(0, len(FEATURES) - 1)) if split else -1
        threshold = draw(st.integers(0, 300)) + 0.5 if split else 0.0
        value = 0.0 if split else draw(st.floats(-2, 2))
        children = (places, places + 1) if split else (0, 0)
        for column, entry in zip(tree, (feature, threshold, *children, value), strict=True):
            column.append(entry)
        places += 2 * split
        made += 1
    return Tree(*tree)


def document(of: list[Tree], **fields: Any) -> Document:
    """A predictor of these trees."""
    defaults: dict[str, Any] = {"means": (10.0, 100.0, 1000.0), "coverage": 0.9, "least_share": 0.4}
    return Document(**{**defaults, "quality": QUALITY, "trees": of, "onnx": to_onnx(of), **fields})


@given(forest=st.lists(trees(), min_size=3, max_size=9), rows=st.lists(NUMBERS, max_size=5))
@settings(max_examples=30, deadline=None)
def test_python_onnx_and_a_walk_agree(forest: list[Tree], rows: list[list[int]]) -> None:
    forest = forest[: len(forest) // 3 * 3]
    python, onnx = (Predictor(document(forest), engine) for engine in ("python", "onnxruntime"))
    for row in rows:
        sums = [sum(walked(tree, row) for tree in forest[place::3]) for place in range(3)]
        assert compiled(forest)(row) == pytest.approx(sums)
        assert python.shares(row) == pytest.approx(shares(sums))
        assert onnx.shares(row) == pytest.approx(shares(sums), abs=1e-5)
        assert python(row).tokens == pytest.approx(onnx(row).tokens, abs=1)


def test_a_prediction_is_the_mean_of_the_classes_by_their_shares_and_the_likely_ones() -> None:
    found = Predictor(document([LEAF] * 3), "python")([0] * 19)
    assert (found.tokens, found.classes) == (370, (0,))
    assert Predictor(document([LEAF] * 3, least_share=0.3), "python")([0] * 19).classes == (0, 1, 2)


def test_without_an_onnx_model_python_will_do() -> None:
    assert Predictor(document([LEAF] * 3, onnx=b"")).engine == "python"
    assert Predictor(document([LEAF] * 3)).engine == "onnxruntime"


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(ValueError, match="onnxruntime cannot load it"):
        Predictor(document([LEAF] * 3, onnx=b"nonsense"))
    with pytest.raises(ValueError, match="there are 2"):
        compiled([LEAF] * 2)
    with pytest.raises(ValueError, match="columns"):
        Tree([-1], [0.0], [0], [0], [])
    with pytest.raises(ValueError, match="feature 19"):
        Tree([19, -1, -1], [0.0] * 3, [1, 0, 0], [2, 0, 0], [0.0] * 3)
    with pytest.raises(ValueError, match="leads to"):
        Tree([0, -1, -1], [0.0] * 3, [0, 0, 0], [2, 0, 0], [0.0] * 3)
    nodes = 2 * MOST_DEEP + 5
    inner = [node % 2 == 0 and node < nodes - 1 for node in range(nodes)]
    chain = Tree(
        [0 if split else -1 for split in inner],
        [0.5] * nodes,
        [node + 1 if split else 0 for node, split in enumerate(inner)],
        [node + 2 if split else 0 for node, split in enumerate(inner)],
        [0.0] * nodes,
    )
    with pytest.raises(ValueError, match="deeper than"):
        compiled([chain] * 3)
