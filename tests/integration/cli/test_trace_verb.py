"""`millrace trace`: traces that are reshaped, and made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from millrace.cli import main
from millrace.data import open_trace


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as left:
        main(("trace", *words))
    out, err = capsys.readouterr()
    return left.value.code, out, err


def made(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code, out, err = run(capsys, "synthesise", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_made_traffic_is_like_the_recorded_one_and_the_seeds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    words = ("azure_conv_2023", "--requests", "3000", "--model", "llama-3-8b")
    found = [made(capsys, *words, "--seed", seed, out) for seed, out in zip("112", files, strict=True)]
    assert found[0]["schema"] == "millrace.synthesis/1"
    assert found[0]["requests"] == 3000
    assert all(0 < far < 0.1 for far in found[0]["likeness"].values())
    first, again, other = (Path(out).read_bytes() for out in files)
    assert first == again != other
    records = list(open_trace(files[0]))
    assert len(records) == 3000
    assert {record.model for record in records} == {"llama-3-8b"}


def test_traffic_may_be_made_for_longer_than_the_trace_lasts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    short, out = str(tmp_path / "short.jsonl"), str(tmp_path / "made.jsonl")
    assert run(capsys, "convert", "azure_conv_2023", short, "--requests", "500")[0] == 0
    last_s = max(record.t_s for record in open_trace(short))
    found = made(capsys, short, out, "--for", "10m")
    assert 550 < found["duration_s"] < 600
    assert last_s < 300
    code, table, err = run(capsys, "synthesise", short, out)
    assert (code, err.startswith("wrote ")) == (0, True)
    assert "input_tokens" in table
    assert max(record.t_s for record in open_trace(out)) == pytest.approx(last_s, rel=0.5)


def test_conversations_are_found_kept_and_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    talks, out = str(tmp_path / "talks.jsonl"), str(tmp_path / "made.jsonl")
    words = ("mooncake_conversation", talks, "--find-sessions", "--requests", "2000")
    assert run(capsys, "convert", *words)[0] == 0
    assert sum(record.parent is not None for record in open_trace(talks)) > 300
    assert made(capsys, talks, out, "--requests", "500")["sessions"] > 300
    records = list(open_trace(out))
    assert {record.block_tokens for record in records if record.blocks} == {512}
    assert any(record.turn for record in records)


def test_lengths_may_be_halved_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path / "half.jsonl")
    run(capsys, "convert", "azure_conv_2023", out, "--requests", "50", "--lengths", "x0.5", "--rate", "x2")
    for whole, half in zip(open_trace("azure_conv_2023"), open_trace(out), strict=False):
        assert half.input_tokens == max(1, round(whole.input_tokens * 0.5))
        assert half.output_tokens == max(1, round(whole.output_tokens * 0.5))
        assert half.t_s == whole.t_s / 2


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--requests", "5", "--for", "5s"), "leave out one of them"),
        (("--for", "5"), "--for: cannot read the duration '5'"),
        (("--for", "1us"), "nothing comes in that time"),
        (("--period", "0s"), "it must be above 0"),
        (("--burst", "poisson"), "gamma"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], hint: str
) -> None:
    code, out, err = run(capsys, "synthesise", "azure_conv_2023", str(tmp_path / "out.jsonl"), *words)
    assert (code, out) == (2, "")
    assert hint in err
    assert len(err.strip().splitlines()) == 1


def test_a_trace_is_never_replaced_by_what_was_made_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace, link = tmp_path / "trace.jsonl", tmp_path / "link.jsonl"
    assert run(capsys, "convert", "azure_conv_2023", str(trace), "--requests", "50")[0] == 0
    link.symlink_to(trace)
    before = trace.read_bytes()
    for verb, out, *words in (("convert", trace, "--to", "azure"), ("synthesise", link)):
        code, said, err = run(capsys, verb, str(trace), str(out), *map(str, words))
        assert (code, said) == (2, "")
        assert "is the trace itself" in err
    assert trace.read_bytes() == before


def test_a_conversion_is_told_as_one_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path / "out.csv")
    words = ("convert", "azure_conv_2023", out, "--requests", "50", "--to", "azure", "--json")
    code, said, _ = run(capsys, *words)
    assert code == 0
    assert json.loads(said) == {
        "schema": "millrace.conversion/1",
        "trace": "azure_conv_2023",
        "out": out,
        "format": "azure",
        "requests": 50,
    }


def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "convert", "azure_conv_2023", str(tmp_path / "none" / "out.jsonl"))
    assert code == 2
    assert "there is no folder" in err
