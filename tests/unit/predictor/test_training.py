"""Learning from a log: what comes out ranks, covers as promised, and says when nothing could be learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from millrace.core.answer_length import class_of
from millrace.core.draw import draw
from millrace.core.lexical import lexical
from millrace.core.synthetic.instructions import instructions
from millrace.core.trace import TraceRecord
from millrace.predictor import Document, Predictor, read_document, write_document
from millrace.predictor.training import Training, train, usable


def records(count: int, *, luck: float = 0.8, seed: int = 0) -> list[TraceRecord]:
    """What a log keeps of made-up instructions."""
    return [
        TraceRecord(
            id=f"q{n}",
            t_s=float(n),
            input_tokens=10,
            output_tokens=one.answer_tokens,
            lexical=lexical(one.text),
        )
        for n, one in enumerate(instructions(count, luck=luck, seed=seed))
    ]


@pytest.fixture(scope="module")
def made() -> Document:
    """A predictor of short training."""
    return train(records(1500), Training(rounds=20))


def test_held_out_answers_are_ranked_and_covered_as_promised(made: Document) -> None:
    quality = made.quality
    assert (quality.trained, quality.calibrated, quality.held_out) == (900, 300, 300)
    assert quality.ranks
    assert quality.pairs_in_order > 0.8
    assert quality.rank_correlation > 0.6
    assert quality.accuracy > 0.6
    assert quality.coverage == pytest.approx(0.9, abs=0.05)
    assert sum(quality.class_shares) == pytest.approx(1)


def test_coverage_holds_for_requests_that_come_later(made: Document) -> None:
    predictor, later = Predictor(made), records(1500, seed=9)
    hit = sum(class_of(one.output_tokens) in predictor(one.lexical).classes for one in later)
    assert hit / len(later) == pytest.approx(0.9, abs=0.04)


def test_lightgbm_onnx_and_python_say_the_same(made: Document) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    onnx, python = Predictor(made, "onnxruntime"), Predictor(made, "python")
    assert lightgbm.__version__
    for one in records(100, seed=5):
        assert onnx.shares(one.lexical) == pytest.approx(python.shares(one.lexical), abs=1e-5)


def test_a_predictor_survives_its_file(made: Document, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    write_document(made, path)
    assert read_document(path) == made
    assert [child.name for child in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other/1"}, "its schema is 'other/1'"),
        ({"features": ["one"]}, "train it again"),
        ({"trees": [[[0], [0.5], [0], [0], [0.0]]]}, "leads to"),
        ({"means": [1]}, "means"),
    ],
)
def test_a_file_that_is_no_usable_predictor_is_refused(
    made: Document, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(made) | change))
    with pytest.raises(ValueError, match=message):
        read_document(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"p\.json is no predictor"):
        read_document(path)


def test_shuffled_answers_teach_nothing_and_the_sets_say_so() -> None:
    real = records(900)
    lengths = sorted((draw("shuffle", one.id), one.output_tokens) for one in real)
    shuffled = [replace(one, output_tokens=tokens) for one, (_, tokens) in zip(real, lengths, strict=True)]
    quality = train(shuffled, Training(rounds=10)).quality
    assert not quality.ranks
    assert quality.coverage == pytest.approx(0.9, abs=0.07)
    assert quality.classes_per_answer > 2


def test_a_class_that_never_came_has_the_mean_of_its_bounds() -> None:
    short = [replace(one, output_tokens=1 + one.output_tokens % 90) for one in records(200)]
    made = train(short, Training(rounds=2))
    assert made.quality.class_shares == (1.0, 0.0, 0.0)
    assert made.quality.pairs_in_order == 0.5
    assert made.means[1:] == (500.0, 800.0)


def test_only_answered_requests_whose_wording_was_kept_are_learned_from() -> None:
    good, late = records(2)
    failed = replace(good, failed=True)
    plain = replace(good, lexical=())
    assert usable([late, failed, plain, good]) == [good, late]
    with pytest.raises(ValueError, match="has 3 numbers, not 19"):
        usable([replace(good, lexical=(1, 2, 3))])
    with pytest.raises(ValueError, match=r"2 answered requests .* 200 are needed"):
        train([good, late], Training())


@pytest.mark.parametrize("settings", [{"bounds": (0, 5)}, {"bounds": (9, 9)}, {"coverage": 1.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Training(**settings)
