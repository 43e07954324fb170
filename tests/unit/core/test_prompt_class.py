"""Prompts fall into a few classes by the numbers on their wording."""

from __future__ import annotations

import pytest

from millrace.core.lexical import lexical
from millrace.core.prompt_class import CLASSES, prompt_class


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Explain recursion in 20 words", "limited"),
        ("Write a function that sorts", "code"),
        ("Enumerate every prime", "list"),
        ("Write me a story of the sea", "write"),
        ("Why do cats purr", "explain"),
        ("Is it late?", "ask"),
        ("Hello there", "other"),
    ],
)
def test_a_prompt_has_the_class_of_its_wording(text: str, name: str) -> None:
    assert prompt_class(lexical(text)) == name
    assert name in CLASSES


def test_a_prompt_that_was_not_read_has_a_class_of_its_own() -> None:
    assert prompt_class(()) == "unread"
    assert CLASSES[-1] == "unread"
