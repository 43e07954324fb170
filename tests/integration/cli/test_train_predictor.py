"""`millrace train-predictor` learns from a log, says how well, and writes what `serve` and others can use."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.lexical import lexical
from millrace.core.synthetic.instructions import instructions
from millrace.core.trace import TraceRecord, write_trace
from millrace.predictor import Predictor, read_document
from tests.integration.cli.saying import Run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A trace whose requests' wording was kept."""
    records = (
        TraceRecord(
            id=f"q{n}",
            t_s=float(n),
            input_tokens=10,
            output_tokens=one.answer_tokens,
            lexical=lexical(one.text),
        )
        for n, one in enumerate(instructions(400))
    )
    path = tmp_path / "served.jsonl"
    path.write_text("".join(line + "\n" for line in write_trace(records, "millrace")))
    return path


def test_a_predictor_is_learned_and_judged_and_written(millrace: Run, log: Path, tmp_path: Path) -> None:
    out, onnx = tmp_path / "p.json", tmp_path / "p.onnx"
    said = millrace("train-predictor", str(log), "--out", str(out), "--onnx", str(onnx), "--json")
    assert said.code == 0, said.err
    told = said.json
    assert told["schema"] == "millrace.training/1"
    assert told["quality"]["ranks"] is True
    assert told["quality"]["held_out"] == 80
    made = read_document(out)
    assert made.onnx == onnx.read_bytes()
    question = "Who came up with the tides?"
    essay = "Write an essay on the tides and sourdough, their history, and what came of them."
    short, long = (Predictor(made)(lexical(text)).tokens for text in (question, essay))
    assert short < long / 5


def test_a_table_is_for_people(millrace: Run, log: Path, tmp_path: Path) -> None:
    said = millrace(
        "train-predictor", str(log), str(log), "--out", str(tmp_path / "p"), "--bounds", "100,400"
    )
    assert said.code == 0
    assert "held_out            160" in said.out
    assert "class_shares        short" in said.out


def test_what_speaks_against_a_predictor_is_said(millrace: Run, log: Path, tmp_path: Path) -> None:
    said = millrace("train-predictor", str(log), "--out", str(tmp_path / "p"), "--bounds", "9000,9001")
    assert said.code == 0
    assert "warning: 0.00% of the answers are medium; choose --bounds" in said.err
    assert "ranked better than by luck" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("azure_conv_2023",), "0 answered requests say what their wording was like"),
        (("azure_conv_2023", "--bounds", "200"), "--bounds: cannot read '200'"),
        (("azure_conv_2023", "--bounds", "9,5"), "bounds are (9, 5)"),
        (("azure_conv_2023", "--coverage", "1"), "coverage is 1.0"),
    ],
)
def test_what_cannot_be_learned_is_an_error(
    millrace: Run, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    said = millrace("train-predictor", *words, "--out", str(tmp_path / "p"))
    assert said.code == 2
    assert message in said.err
    assert list(tmp_path.iterdir()) == []
