"""The 19 numbers of a request's wording, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.lexical import FEATURES, LOOKED_AT, VERBS, lexical


def named(text: str) -> dict[str, int]:
    """Return the numbers that are not 0, by name, without the length."""
    found = dict(zip(FEATURES, lexical(text), strict=True))
    del found["prompt_token_len"]
    return {name: number for name, number in found.items() if number}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "verb_other"),
        ("What is the capital of France?  ", "verb_what ends_with_question"),
        ("Is it? No.", "verb_other"),
        ("Explain what a loop is", "verb_explain has_code_keyword"),
        ("Write, then summarize it; briefly", "verb_summarize has_length_constraint clause_count=2"),
        ("Translate this and that but not those", "verb_other clause_count=2"),
        ("debug why it fails", "verb_other has_code_keyword"),
        ("How do I write a list?", "verb_list has_format_keyword ends_with_question"),
        ("GENERATING a TABLE", "verb_generate has_format_keyword"),
        ("Implement it as a one-liner", "verb_implement has_code_keyword has_length_constraint"),
        ("Define it in 20 words", "verb_define has_length_constraint"),
        ("Defining it in  3 sentences, no more", "verb_define has_length_constraint clause_count"),
        ("Say no more than 5words", "verb_other has_length_constraint"),
        ("Stay under 100 words", "verb_other has_length_constraint"),
        ("tl;dr", "verb_other has_length_constraint clause_count"),
        ("tldr of it", "verb_other has_length_constraint"),
        ("words in a sentence are more than liners", "verb_other"),
        ("restructured", "verb_other has_format_keyword"),
        ("a codec, an apiary", "verb_other clause_count"),
        ("call write_file of my_class", "verb_other has_code_keyword"),
        ("explain_it", "verb_other"),
        ("Step By Step because I say so", "verb_other has_format_keyword clause_count"),
        ("Was ist das?", "verb_other ends_with_question"),
        ("naïvewrite", "verb_other"),
    ],
)
def test_numbers_are_what_the_words_say(text: str, expected: str) -> None:
    wanted = (word.partition("=") for word in expected.split())
    assert named(text) == {name: int(number or 1) for name, _, number in wanted}


def test_each_verb_has_a_place_and_the_first_of_the_published_order_counts() -> None:
    for verb in VERBS[:-1]:
        assert named(f"please {verb} this")[f"verb_{verb}"] == 1
    assert "verb_summarize" in named("why how what define describe write list compare explain summarize")
    assert "verb_what" in named("why, how, what")
    assert "verb_how" in named("why and how")


def test_the_length_counts_bytes_of_which_four_make_a_token() -> None:
    assert [lexical(text)[0] for text in ("", "abc", "abcd", "éé", "\ud800x")] == [0, 0, 1, 1, 1]


def test_of_a_long_prompt_both_ends_are_looked_at_and_all_of_it_counts() -> None:
    middle = "and so on, " * LOOKED_AT
    found = dict(zip(FEATURES, lexical(f"Explain this: {middle} briefly?"), strict=True))
    assert found["verb_explain"] == found["has_length_constraint"] == found["ends_with_question"] == 1
    assert found["prompt_token_len"] == len(f"Explain this: {middle} briefly?") // 4
    assert found["clause_count"] <= LOOKED_AT
    assert "has_code_keyword" not in named("x" * LOOKED_AT + " code " + "x" * LOOKED_AT)


@given(st.text())
def test_any_text_has_numbers_of_which_one_is_its_verb(text: str) -> None:
    numbers = lexical(text)
    assert len(numbers) == len(FEATURES) == 19
    assert sum(numbers[6:]) == 1
    assert set(numbers[1:5]) | set(numbers[6:]) <= {0, 1}
    assert numbers[0] >= 0
    assert numbers[5] >= 0


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=LOOKED_AT))
def test_case_does_not_matter(text: str) -> None:
    assert lexical(text.upper()) == lexical(text.lower())
