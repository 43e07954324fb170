"""How names of models are written on the command line."""

from __future__ import annotations

import pytest

from millrace.cli.serving import aliases_of, fallbacks_of, words_of


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("chat=llama", "llama"),
        ("chat=llama3:8b", "llama3:8b"),
        ("chat=llama:90,qwen:10", {"llama": 90.0, "qwen": 10.0}),
        ("chat=llama3:8b,qwen:0.5", {"llama3:8b": 1.0, "qwen": 0.5}),
        ("chat=qwen:7:1", {"qwen:7": 1.0}),
        ("chat=a=b", "a=b"),
    ],
)
def test_an_alias_is_read_with_its_weights(text: str, target: object) -> None:
    assert aliases_of([text]) == {"chat": target}


def test_the_catch_all_is_an_alias_like_others() -> None:
    assert aliases_of(["*=llama", "a=b"]) == {"*": "llama", "a": "b"}


@pytest.mark.parametrize("text", ["chat", "=llama", "chat=", "chat=a,,b", "chat=a:1,a:2"])
def test_what_is_no_alias_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        aliases_of([text])


def test_fallbacks_are_read_in_their_order() -> None:
    assert fallbacks_of(["llama=qwen,phi", "qwen=phi"]) == {"llama": ("qwen", "phi"), "qwen": ("phi",)}
    with pytest.raises(ValueError, match="cannot read 'llama'"):
        fallbacks_of(["llama"])


def test_options_are_said_again_as_they_were() -> None:
    said = {"demo": True, "max_hold": 2.5, "specs": None, "alias": ["a=b", "c=d"], "answer_as_asked": True}
    words = ["--max-hold", "2.5", "--alias", "a=b", "--alias", "c=d"]
    assert words_of(said, leave_out=("demo",)) == words
    assert words_of({"answer_as_asked": False}, leave_out=()) == ["--answer-as-served"]


def test_a_flag_is_said_again_only_if_it_was_given() -> None:
    assert words_of({"log_scores": True, "shadow": "random"}, leave_out=()) == [
        "--log-scores",
        "--shadow",
        "random",
    ]
    assert words_of({"log_scores": False, "demo": True, "shadow": None}, leave_out=("demo",)) == []
