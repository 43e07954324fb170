from __future__ import annotations

from millrace.core.suggest import unknown


def test_an_unknown_name_is_told_what_there_is_and_what_it_meant() -> None:
    assert str(unknown("model", "llama-3-8", ["qwen3-8b", "llama-3-8b"])) == (
        "unknown model 'llama-3-8'; did you mean 'llama-3-8b'? known: llama-3-8b, qwen3-8b"
    )


def test_the_beginning_of_a_name_counts_more_than_likeness() -> None:
    assert "did you mean 'a100-80g'?" in str(unknown("device", "A100", ["h100", "a100-80g"]))


def test_a_name_like_no_other_gets_no_advice() -> None:
    assert str(unknown("device", "tpu", ["h100"])) == "unknown device 'tpu'; known: h100"
    assert "did you mean" not in str(unknown("device", "", ["h100"]))
