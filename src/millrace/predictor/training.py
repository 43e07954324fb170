"""Learns answer lengths from a log: boosted trees on what came first, judged on what came later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

from msgspec import Struct

from millrace.core.answer_length import BOUNDS, CLASSES, class_of
from millrace.core.lexical import FEATURES
from millrace.core.trace import TraceRecord
from millrace.predictor.conformal import classes_of, least_share
from millrace.predictor.document import Document
from millrace.predictor.onnx_export import to_onnx
from millrace.predictor.quality import Quality, pairs_in_order, rank_correlation
from millrace.predictor.trees import Tree

FEWEST = 200
PACKAGES = ("lightgbm", "onnx")
_LARGEST_FLOAT = 3e38


class Training(Struct, frozen=True, kw_only=True):
    """How to learn: answers below the first of the `bounds` are short, from the second on long.

    The first `trained` share of the requests is learned from, the next `calibrated` share sets how sure a
    class has to be for the promised `coverage`, and the rest judges. There are `rounds` trees for each class,
    of so many `leaves`.
    """

    bounds: tuple[int, int] = BOUNDS
    coverage: float = 0.9
    trained: float = 0.6
    calibrated: float = 0.2
    rounds: int = 60
    leaves: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds are {self.bounds}; the first must be above 0 and below the second")
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage is {self.coverage}; it must be between 0 and 1")


def missing() -> list[str]:
    """Return the packages that training needs and that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def usable(records: Iterable[TraceRecord]) -> list[TraceRecord]:
    """Return the answered requests whose wording was kept, in the order in which they came.

    Raises ValueError for records whose wording was kept by another version.
    """
    kept = [record for record in records if record.lexical and not record.failed]
    for record in kept:
        if len(record.lexical) != len(FEATURES):
            raise ValueError(f"lexical of {record.id} has {len(record.lexical)} numbers, not {len(FEATURES)}")
    return sorted(kept, key=lambda record: record.t_s)


def train(records: Sequence[TraceRecord], how: Training) -> Document:
    """Learn from usable records. Raises ValueError if they are too few."""
    if len(records) < FEWEST:
        raise ValueError(
            f"{len(records)} answered requests say what their wording was like, and {FEWEST} are needed: "
            "serve more of them with --log-features and an event log"
        )
    parts = _split(records, how)
    booster = _booster(parts[0], how)
    trees = [_tree(one["tree_structure"]) for one in booster.dump_model()["tree_info"]]
    means = _means(parts[0], how.bounds)
    sure, judged = (booster.predict(_rows(part), num_threads=1).tolist() for part in parts[1:])
    of_true = [row[_class(one, how)] for row, one in zip(sure, parts[1], strict=True)]
    least = least_share(of_true, how.coverage)
    return Document(
        bounds=how.bounds,
        means=means,
        coverage=how.coverage,
        least_share=least,
        quality=_quality(parts, judged, means, least, how=how),
        trees=trees,
        onnx=to_onnx(trees),
    )


def _split(records: Sequence[TraceRecord], how: Training) -> tuple[Sequence[TraceRecord], ...]:
    """By time: whoever judges came last, as tomorrow's requests will."""
    first = int(len(records) * how.trained)
    second = first + int(len(records) * how.calibrated)
    return records[:first], records[first:second], records[second:]


def _booster(records: Sequence[TraceRecord], how: Training) -> Any:
    import lightgbm

    settings = {
        "objective": "multiclass",
        "num_class": len(CLASSES),
        "num_leaves": how.leaves,
        "max_depth": 6,
        "learning_rate": 0.1,
        "min_data_in_leaf": 10,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": how.seed,
        "verbose": -1,
    }
    labels = [_class(record, how) for record in records]
    data = lightgbm.Dataset(_rows(records), labels, feature_name=list(FEATURES))
    return lightgbm.train(settings, data, num_boost_round=how.rounds)


def _rows(records: Sequence[TraceRecord]) -> Any:
    import numpy as np

    return np.array([record.lexical for record in records], dtype=np.float64)


def _class(record: TraceRecord, how: Training) -> int:
    return class_of(record.output_tokens, how.bounds)


def _tree(root: dict[str, Any]) -> Tree:
    """Number a tree's nodes, parents before their children."""
    nodes = [root]
    left, right = [], []
    for node in nodes:  # which grows meanwhile
        is_leaf = "split_feature" not in node
        left.append(0 if is_leaf else len(nodes))
        right.append(0 if is_leaf else len(nodes) + 1)
        nodes += [] if is_leaf else [node["left_child"], node["right_child"]]
    return Tree(
        feature=[node.get("split_feature", -1) for node in nodes],
        threshold=[max(-_LARGEST_FLOAT, min(_LARGEST_FLOAT, node.get("threshold", 0.0))) for node in nodes],
        left=left,
        right=right,
        value=[node.get("leaf_value", 0.0) for node in nodes],
    )


def _quality(
    parts: Sequence[Sequence[TraceRecord]],
    judged: Sequence[Sequence[float]],
    means: Sequence[float],
    least: float,
    *,
    how: Training,
) -> Quality:
    held_out = parts[2]
    classes = [_class(record, how) for record in held_out]
    sets = [classes_of(shares, least) for shares in judged]
    likeliest = [max(range(len(shares)), key=shares.__getitem__) for shares in judged]
    expected = [sum(share * mean for share, mean in zip(shares, means, strict=True)) for shares in judged]
    every = [_class(record, how) for part in parts for record in part]
    short, medium, long = (every.count(number) / len(every) for number in range(len(CLASSES)))
    return Quality(
        trained=len(parts[0]),
        calibrated=len(parts[1]),
        held_out=len(held_out),
        class_shares=(short, medium, long),
        accuracy=sum(map(int.__eq__, likeliest, classes)) / len(classes),
        coverage=sum(one in found for one, found in zip(classes, sets, strict=True)) / len(classes),
        classes_per_answer=sum(map(len, sets)) / len(sets),
        rank_correlation=rank_correlation(expected, [record.output_tokens for record in held_out]),
        pairs_in_order=pairs_in_order(expected, classes),
    )


def _means(records: Sequence[TraceRecord], bounds: tuple[int, int]) -> tuple[float, float, float]:
    """Return the mean answer of each class; of one that never came, its nearest bound."""
    tokens: list[list[int]] = [[] for _ in CLASSES]
    for record in records:
        tokens[class_of(record.output_tokens, bounds)].append(record.output_tokens)
    otherwise = (bounds[0] / 2, sum(bounds) / 2, float(bounds[1]))
    short, medium, long = (
        sum(found) / len(found) if found else other for found, other in zip(tokens, otherwise, strict=True)
    )
    return short, medium, long
