"""Only what an answer says its model is gets another name, never what the model wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.gateway.renaming import Renaming


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b'data: {"id":"1","model":"org/m","x":1}\n\n', b'data: {"id":"1","model":"chat","x":1}\n\n'),
        (b'{"id": "1", "model": "org/m"}', b'{"id": "1", "model": "chat"}'),
        (b'{"response":{"model":"org/m"}}', b'{"response":{"model":"chat"}}'),
        (b'{"model":"org/m-2"}', b'{"model":"org/m-2"}'),
        (b'{"model":"other","text":"org/m"}', b'{"model":"other","text":"org/m"}'),
        (b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
    ],
)
def test_a_model_goes_by_the_clients_name(said: bytes, heard: bytes) -> None:
    assert Renaming("org/m", "chat")(said) == heard


@pytest.mark.parametrize("said", ['{"model":"modèle"}'.encode(), rb'{"model":"mod\u00e8le"}'])
def test_names_beyond_ascii_are_known_in_both_spellings(said: bytes) -> None:
    assert json.loads(Renaming("modèle", "größe")(said)) == {"model": "größe"}


@given(st.text() | st.just('{"model":"m"}') | st.just('x"model":"m"'), st.booleans())
def test_what_a_model_wrote_is_never_changed(text: str, spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    said = json.dumps({"model": "m", "choices": [{"text": text}]}, separators=separators)
    assert json.loads(Renaming("m", "chat")(said.encode())) == {"model": "chat", "choices": [{"text": text}]}
