"""How long a prediction takes: its numbers, and the trees by LightGBM, onnxruntime, Python and node by node.

    python -m benchmarks.length_prediction [--json]

One row at a time, as a gateway asks. Each figure is the mean over the texts in the best of many rounds; ways
take turns, so that whatever else the machine does disturbs them alike.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from millrace.core.lexical import lexical
from millrace.core.synthetic.instructions import instructions
from millrace.core.trace import TraceRecord
from millrace.predictor import Document, Predictor
from millrace.predictor.training import Training, train
from millrace.predictor.trees import Tree

TEXTS = [made.text for made in instructions(100, seed=3)]
ROWS = [lexical(text) for text in TEXTS]
ROUNDS = 60


def main(arguments: Sequence[str]) -> None:
    """Measure ensembles of three sizes."""
    found = {}
    for rounds, leaves in ((20, 8), (60, 15), (200, 15)):
        found[f"{3 * rounds} trees of {leaves} leaves"] = _times_us(_trained(rounds, leaves))
    if "--json" in arguments:
        print(json.dumps(found))
        return
    for size, times in found.items():
        print(size, *(f"  {name:<40} {value:7.1f} us" for name, value in times.items()), sep="\n")


def _trained(rounds: int, leaves: int) -> Document:
    records = [
        TraceRecord(
            id=str(n),
            t_s=float(n),
            input_tokens=9,
            output_tokens=one.answer_tokens,
            lexical=lexical(one.text),
        )
        for n, one in enumerate(instructions(2000, luck=0.8))
    ]
    return train(records, Training(rounds=rounds, leaves=leaves))


def _times_us(made: Document) -> dict[str, float]:
    onnx, python = Predictor(made, "onnxruntime"), Predictor(made, "python")
    ways: dict[str, Callable[[], Any]] = {
        "numbers of a text": lambda: [lexical(text) for text in TEXTS],
        "trees by onnxruntime": lambda: [onnx.shares(row) for row in ROWS],
        "trees by Python": lambda: [python.shares(row) for row in ROWS],
        "trees by walking nodes": lambda: [_walked(made.trees, row) for row in ROWS],
        "trees by LightGBM": _by_lightgbm(made),
        "text to prediction, onnxruntime": lambda: [onnx(lexical(text)) for text in TEXTS],
        "text to prediction, Python": lambda: [python(lexical(text)) for text in TEXTS],
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began_s = perf_counter()
            way()
            best[name] = min(best[name], perf_counter() - began_s)
    return {name: 1e6 * seconds / len(TEXTS) for name, seconds in best.items()}


def _walked(trees: Sequence[Tree], row: Sequence[int]) -> list[float]:
    sums = [0.0, 0.0, 0.0]
    for number, tree in enumerate(trees):
        node = 0
        while (feature := tree.feature[node]) >= 0:
            node = tree.left[node] if row[feature] <= tree.threshold[node] else tree.right[node]
        sums[number % 3] += tree.value[node]
    return sums


def _by_lightgbm(made: Document) -> Callable[[], Any]:
    """Train as many trees once more: a document has no booster."""
    import lightgbm
    import numpy as np

    rows = np.array(ROWS, dtype=np.float64)
    labels = [n % 3 for n in range(len(ROWS))]
    settings = {
        "objective": "multiclass",
        "num_class": 3,
        "num_leaves": 15,
        "min_data_in_leaf": 1,
        "verbose": -1,
        "num_threads": 1,
    }
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, labels), num_boost_round=len(made.trees) // 3)
    return lambda: [booster.predict(np.array([row], dtype=np.float64), num_threads=1) for row in ROWS]


if __name__ == "__main__":
    main(sys.argv[1:])
