"""A predictor at work: from the numbers of a request's wording to the length of its answer, in no time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

from millrace.core.answer_length import LengthPrediction
from millrace.predictor.conformal import classes_of
from millrace.predictor.document import Document
from millrace.predictor.trees import compiled, shares

Engine = Literal["onnxruntime", "python"]
Shares = Callable[[Sequence[int]], Sequence[float]]


class Predictor:
    """Evaluates a document's trees with onnxruntime where that is installed, else in Python.

    `engine` says by which; both give the same probabilities, but for the seventh digit or so.
    """

    def __init__(self, document: Document, engine: Engine | None = None) -> None:
        """Raises ValueError for trees that cannot be evaluated."""
        usual: Engine = "onnxruntime" if document.onnx and find_spec("onnxruntime") else "python"
        self.document = document
        self.engine = engine or usual
        self.shares = _by_onnx(document.onnx) if self.engine == "onnxruntime" else _by_python(document)
        self._means, self._least = document.means, document.least_share

    def __call__(self, numbers: Sequence[int]) -> LengthPrediction:
        """Predict the length of an answer from the numbers of `core.lexical`."""
        found = self.shares(numbers)
        expected = sum(share * mean for share, mean in zip(found, self._means, strict=True))
        return LengthPrediction(max(1, round(expected)), classes_of(found, self._least))


def _by_python(document: Document) -> Shares:
    scores = compiled(document.trees)
    return lambda numbers: shares(scores(numbers))


def _by_onnx(model: bytes) -> Shares:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # handing over costs more than one row
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own in common
        raise ValueError(f"onnx: onnxruntime cannot load it: {error}") from error
    run, wanted = session.run, ["shares"]

    def found(numbers: Sequence[int]) -> Sequence[float]:
        rows: list[list[float]] = run(wanted, {"features": np.array([numbers], dtype=np.float32)})[0].tolist()
        return rows[0]

    return found
