from __future__ import annotations

import json

import pytest

from millrace.core.request import Slo
from millrace.core.trace import TraceError, TraceRecord
from millrace.core.trace.native import read, write

FULL = TraceRecord(
    id="r-1",
    t_s=0.1,
    input_tokens=100,
    output_tokens=7,
    session="s",
    turn=2,
    parent="r-0",
    model="llama",
    tenant="team",
    priority=-3,
    max_tokens=64,
    block_tokens=32,
    blocks=(2**62, 5, 2**127),
    tail_block=9,
    slo=Slo(ttft_s=0.5, tpot_s=0.05),
    adapter="lora",
    images=3,
    kind="chat",
    elapsed_s=1.25,
    failed=True,
)


def test_every_field_comes_back() -> None:
    assert all(getattr(FULL, name) is not None for name in FULL.__struct_fields__)
    assert list(read(write([FULL]))) == [FULL]


def test_what_is_unknown_takes_no_room() -> None:
    header, row = write([TraceRecord(id="a", t_s=1.5, input_tokens=1, output_tokens=2)], source="a gateway")
    assert json.loads(header) == {"schema": "millrace.trace/1", "source": "a gateway"}
    assert json.loads(row) == {"id": "a", "t_s": 1.5, "input_tokens": 1, "output_tokens": 2}


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        ('{"id":"a","t_s":0,"input_tokens":1}', "output_tokens", "missing required field"),
        ('{"id":"a","t_s":0,"input_tokens":-1,"output_tokens":1}', "input_tokens", "Expected `int` >= 0"),
        ('{"id":"a","t_s":0,"input_tokens":1,"output_tokens":1,"tenent":"x"}', "tenent", "unknown field"),
        ('{"id":"a","t_s":null,"input_tokens":1,"output_tokens":1}', "t_s", "Expected `float`, got `null`"),
        ("nothing", "row", "malformed"),
    ],
)
def test_bad_lines_are_named_by_number_and_field(line: str, field: str, problem: str) -> None:
    lines = [*write([FULL]), "", line]
    with pytest.raises(TraceError, match=problem) as caught:
        list(read(lines))
    assert (caught.value.line, caught.value.field) == (4, field)


def test_other_versions_of_the_schema_are_refused() -> None:
    with pytest.raises(TraceError, match=r"line 1, schema: is 'millrace.trace/2'; this Millrace reads"):
        list(read(['{"schema":"millrace.trace/2"}']))
    with pytest.raises(TraceError, match="line 1, row"):
        list(read([]))
