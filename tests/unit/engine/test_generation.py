"""A sequence ends where it should, shows what it may, and names its blocks as they fill."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.blocks import chain_tokens
from millrace.engine.generation import Delta, Ending, Generation, generation
from millrace.engine.sampling import Logprob, Sampling
from millrace.engine.tokenizer import TextTokenizer
from tests.unit.engine.texts import END, byte_level

TOKENIZER = TextTokenizer(byte_level())
END_TOKEN = TOKENIZER.encode(END, special=False)[0]


def started(prompt: str = "The mill", **options: Any) -> Generation:
    tokens = TOKENIZER.encode(prompt, special=False)
    options = {"ending": Ending(tokens=frozenset({END_TOKEN})), **options}
    return generation("q", tokens, 50, detokenizer=TOKENIZER.detokenizer(), block_tokens=4, **options)


def feed(one: Generation, text: str) -> bool:
    """Accept the text's tokens until one ends the sequence; whether one did."""
    return any(one.accept(token) for token in TOKENIZER.encode(text, special=False))


def test_an_end_token_ends_it_and_is_not_shown() -> None:
    one = started()
    assert not feed(one, " race")
    assert one.accept(END_TOKEN)
    assert one.take(final=True).text == " race"
    assert one.tokens[-1] == END_TOKEN


def test_a_stop_string_ends_it_and_is_not_shown() -> None:
    one = started(ending=Ending(strings=("wheel",)))
    assert feed(one, " race turns the whe") is False
    assert one.take().text == " race turns the "
    assert feed(one, "el and")
    assert one.take(final=True).text == ""


def test_what_was_held_back_is_shown_when_the_end_comes_otherwise() -> None:
    one = started(ending=Ending(strings=("wheel",)))
    feed(one, " the whe")
    assert one.take(final=True).text == " the whe"


def test_an_unfinished_character_becomes_a_replacement_character_at_the_end() -> None:
    one = started()
    one.accept(TOKENIZER.encode("ü", special=False)[0])
    assert (one.take().text, one.take(final=True).text) == ("", "\ufffd")


def test_stop_strings_and_end_tokens_are_ignored_before_min_tokens() -> None:
    sampling = Sampling(min_tokens=3)
    one = started(sampling=sampling, ending=Ending(tokens=frozenset({END_TOKEN}), strings=("a",)))
    tokens = [END_TOKEN, *TOKENIZER.encode("aba", special=False)]
    assert [one.accept(token) for token in tokens] == [False, False, False, True]


def test_logprobs_are_handed_over_once() -> None:
    one = started()
    one.accept(5, Logprob(5, -0.5, ()))
    assert [found.logprob for found in one.take().logprobs] == [-0.5]
    assert one.take().logprobs == []


def test_deltas_add_up() -> None:
    one, whole = started(), started()
    feed(one, " race")
    first = one.take()
    feed(one, " turns")
    feed(whole, " race")
    feed(whole, " turns")
    assert first + one.take() == whole.take()


def test_blocks_are_named_after_all_tokens_in_front_of_them() -> None:
    one = started()
    feed(one, " race turns the wheel, and the wheel turns the stone.")
    assert one.sequence.blocks == chain_tokens(one.tokens, 4)


def test_one_that_goes_on_has_lost_nothing_that_was_held_back() -> None:
    one = started(ending=Ending(strings=("wheel",)))
    one.resume(TOKENIZER.encode(" the whe", special=False))
    assert one.take() == Delta("", [], [])
    (more,) = TOKENIZER.encode("n", special=False)
    assert not one.accept(more)
    assert one.take() == Delta("when", [], [more])


def test_a_whole_answer_cannot_go_on() -> None:
    with pytest.raises(ValueError, match="end the answer"):
        started(ending=Ending(strings=("wheel",))).resume(TOKENIZER.encode("a wheel", special=False))
    with pytest.raises(ValueError, match="end the answer"):
        started().resume(TOKENIZER.encode("x", special=False) * 50)
