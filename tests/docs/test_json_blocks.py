"""The JSON that pages show is what programs read and write."""

from __future__ import annotations

import msgspec
import pytest

from millrace.core.replica import ReplicaSpec
from millrace.core.trace import read_trace
from millrace.gateway.errors import Fault, answer
from pages import pages, read

BLOCKS = [(path.name, block) for path in pages() for block in read(path).blocks if block.language == "json"]


def shown(name: str, word: str) -> str:
    """Return the JSON block of this page that holds this word."""
    [text] = [block.text for page, block in BLOCKS if page == name and word in block.text]
    return text


@pytest.mark.parametrize(("name", "line", "text"), [(name, b.line, b.text) for name, b in BLOCKS])
def test_a_block_is_json_or_lines_of_it(name: str, line: int, text: str) -> None:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        assert [msgspec.json.decode(row) for row in text.splitlines()]


def test_the_trace_that_is_shown_can_be_read() -> None:
    assert [record.id for record in read_trace(shown("traces.md", "millrace.trace").splitlines())] == [
        "a",
        "b",
    ]


def test_the_specs_that_are_shown_can_be_read() -> None:
    specs = msgspec.json.decode(shown("wire.md", "h100"), type=dict[str, ReplicaSpec])
    assert [spec.device for spec in specs.values()] == ["h100", "a100-80g"]


def test_the_error_that_is_shown_is_what_clients_get() -> None:
    fault = Fault(404, "the model 'nope' does not exist", "model", "model_not_found")
    body = answer(fault, b"id").partition(b"\r\n\r\n")[2]
    assert msgspec.json.decode(body) == msgspec.json.decode(shown("wire.md", "nope"))
