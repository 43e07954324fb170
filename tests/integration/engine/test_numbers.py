"""No number that a client may write stops an engine, or is answered with anything but 200 or 400."""

from __future__ import annotations

import json
import re
import typing
from typing import Any

import pytest

from millrace.engine.protocol import ChatBody, CompletionBody
from tests.integration.engine.process import Engine

ENDPOINTS: dict[str, tuple[type, dict[str, Any]]] = {
    "/v1/completions": (CompletionBody, {"prompt": "a", "max_tokens": 2}),
    "/v1/chat/completions": (ChatBody, {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}),
}
NUMBERS = [
    "-1",
    "0",
    str(2**31),
    str(2**63 - 1),
    str(2**63),
    str(2**64),
    str(-(2**63) - 1),
    "9" * 100,
    "9" * 5000,
    "5e-324",
    "1e308",
    "-1e308",
    "1e400",
]
# A top_k beyond the vocabulary keeps all of it, and a token beyond it never comes.
WITHOUT_LIMIT = {"top_k", "stop_token_ids", "logit_bias"}


def numeric_fields(kind: type) -> list[str]:
    hints = typing.get_type_hints(kind)
    return [name for name, hint in hints.items() if re.search(r"\b(int|float)\b", str(hint))]


def posted(engine: Engine, path: str, field: str, number: str) -> Any:
    kind, body = ENDPOINTS[path]
    hint = str(typing.get_type_hints(kind)[field])
    shown = {"list": f"[{number}]", "dict": f'{{"7": {number}}}'}
    written = next((text for name, text in shown.items() if name in hint), number)
    others = json.dumps({name: value for name, value in body.items() if name != field})
    return engine.post(path, f'{others[:-1]}, "{field}": {written}}}'.encode())


@pytest.mark.parametrize("path", ENDPOINTS)
def test_any_number_in_any_field_is_served_or_refused_by_name(engine: Engine, path: str) -> None:
    for field in numeric_fields(ENDPOINTS[path][0]):
        for number in NUMBERS:
            answer = posted(engine, path, field, number)
            status = answer.get("status", 200)
            assert status in {200, 400}, (field, number, answer)
            if status == 400:
                assert answer["error"]["param"] in {field, "prompt", "messages"}, (field, number, answer)
            elif field not in WITHOUT_LIMIT:
                assert abs(float(number)) <= 2**63, (field, number, answer)
    assert posted(engine, path, "max_tokens", "1")["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_any_number_as_a_token_is_served_or_refused_by_name(engine: Engine, number: str) -> None:
    for path, field in (("/v1/completions", "prompt"), ("/detokenize", "tokens")):
        answer = engine.post(path, f'{{"{field}": [{number}], "max_tokens": 1}}'.encode())
        expected = (None, None) if number == "0" else (400, field)
        assert (answer.get("status"), answer.get("error", {}).get("param")) == expected, (path, answer)


@pytest.mark.parametrize("top_k", [10**6, 2**63, 2**200])
def test_a_top_k_beyond_the_vocabulary_keeps_all_of_it(engine: Engine, top_k: int) -> None:
    body = {"prompt": "The mill", "max_tokens": 8, "seed": 3, "temperature": 1.5}
    every = engine.post("/v1/completions", body | {"top_k": -1})["choices"]
    assert engine.post("/v1/completions", body | {"top_k": top_k})["choices"] == every


@pytest.mark.parametrize("field", ["max_tokens", "top_k", "min_tokens"])
def test_a_field_without_upper_bound_names_none(engine: Engine, field: str) -> None:
    answer = posted(engine, "/v1/completions", field, "-7")
    assert answer["error"]["message"] in {f"{field} must be >= {low}, not -7" for low in (-1, 0, 1)}
