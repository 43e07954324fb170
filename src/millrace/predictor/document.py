"""A predictor as a file: one JSON object with the trees twice, as ONNX and as plain numbers."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from millrace.core.answer_length import BOUNDS
from millrace.core.lexical import FEATURES
from millrace.predictor.quality import Quality
from millrace.predictor.trees import Tree

SCHEMA = "millrace.predictor/1"


class Document(Struct, frozen=True, kw_only=True):
    """Everything that a prediction needs, and what is known of how good it is.

    Answers below the first of the `bounds` are short, from the second on long. `means` are the mean lengths
    in each class, in tokens. Classes with at least the `least_share` make a set that holds the true one with
    the `coverage` promised. `onnx` is the same ensemble as `trees`, for onnxruntime and for others to use.
    """

    schema: str = SCHEMA
    features: tuple[str, ...] = FEATURES
    bounds: tuple[int, int] = BOUNDS
    means: tuple[float, float, float]
    coverage: float
    least_share: float
    quality: Quality
    trees: list[Tree]
    onnx: bytes = b""


class _Schema(Struct):
    schema: str = ""
    features: tuple[str, ...] = ()


def read_document(path: Path) -> Document:
    """Read a predictor. Raises ValueError, naming the file, if it is none, or of other features than ours."""
    try:
        data = path.read_bytes()
        begun = msgspec.json.decode(data, type=_Schema)
        if begun.schema != SCHEMA:
            raise ValueError(f"its schema is {begun.schema!r}; this version reads {SCHEMA!r}")
        if begun.features != FEATURES:
            raise ValueError("its features are not those of this version; train it again")
        return msgspec.json.decode(data, type=Document)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no predictor that can be used: {error}") from None


def write_document(document: Document, path: Path) -> None:
    """Write a predictor, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(msgspec.json.encode(document) + b"\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
