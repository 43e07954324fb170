"""Text grows by whole characters, and what was shown is in the end what the tokenizer says of all tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from millrace.engine.detokenizer import Detokenizer
from millrace.engine.tokenizer import TextTokenizer
from tests.unit.engine.texts import END, THINK, byte_level, sentence_pieces

token_lists = st.lists(st.integers(0, byte_level().get_vocab_size() + 3), max_size=40)


def increments(detokenizer: Detokenizer, tokens: list[int]) -> list[str]:
    return [*(detokenizer.push(token) for token in tokens), detokenizer.flush()]


@given(token_lists, st.booleans())
def test_increments_of_any_byte_level_tokens_join_to_the_full_decode(tokens: list[int], skip: bool) -> None:
    tokenizer = TextTokenizer(byte_level())
    joined = "".join(increments(tokenizer.detokenizer(skip_special=skip), tokens))
    assert joined == tokenizer.decode(tokens, skip_special=skip)


@given(st.text(max_size=30))
def test_no_replacement_character_is_shown_for_a_character_that_is_only_incomplete(text: str) -> None:
    tokenizer = TextTokenizer(byte_level())
    tokens = tokenizer.encode(text, special=False)
    shown = ""
    for part in increments(tokenizer.detokenizer(skip_special=False), tokens):
        shown += part
        assert text.startswith(shown)
    assert shown == text


@given(st.text(alphabet="helo wrd,日本é👩", max_size=20))
def test_increments_of_a_sentence_piece_tokenizer_join_to_the_full_decode(text: str) -> None:
    tokenizer = TextTokenizer(sentence_pieces())
    tokens = tokenizer.encode(text, special=False)
    assert "".join(increments(tokenizer.detokenizer(), tokens)) == tokenizer.decode(tokens, skip_special=True)


def test_a_character_of_four_bytes_is_shown_with_its_last_byte() -> None:
    tokenizer = TextTokenizer(sentence_pieces())
    tokens = [2 + byte for byte in "👩".encode()]
    assert increments(tokenizer.detokenizer(), tokens) == ["", "", "", "👩", ""]


def test_special_tokens_are_skipped_and_other_added_tokens_shown() -> None:
    tokenizer = TextTokenizer(byte_level())
    tokens = tokenizer.encode(f"mill{END}{THINK}race", special=False)
    assert "".join(increments(tokenizer.detokenizer(), tokens)) == f"mill{THINK}race"
    assert "".join(increments(tokenizer.detokenizer(skip_special=False), tokens)) == f"mill{END}{THINK}race"


@pytest.mark.parametrize("tokenizer", [byte_level(), sentence_pieces()], ids=["bytes", "pieces"])
def test_the_bytes_of_a_token_are_what_it_decodes_to(tokenizer: Tokenizer) -> None:
    text = TextTokenizer(tokenizer)
    tokens = text.encode("hello", special=False)
    assert b"".join(map(text.token_bytes, tokens)).strip() == b"hello"
