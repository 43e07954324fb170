from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import pytest

from millrace.core.trace import TraceError, TraceRecord
from millrace.core.trace.mooncake import read, write


def row(timestamp: float, input_length: int, output_length: int = 5, **more: object) -> str:
    fields = {"timestamp": timestamp, "input_length": input_length, "output_length": output_length}
    return json.dumps(fields | {"hash_ids": list(range(-(-input_length // 512)))} | more)


def rounded(count: int) -> Iterator[str]:
    """Ten requests in every 3 s, all stamped at its beginning, some a millisecond early."""
    return (row(max(0, 3000 * (n // 10) - n % 2), 600) for n in range(count))


def test_full_blocks_are_kept_apart_from_the_partial_one() -> None:
    (found,) = read([row(27482, 1100, hash_ids=[46, 47, 2354])])
    assert found == TraceRecord(
        id="mooncake-0",
        t_s=27.482,
        input_tokens=1100,
        output_tokens=5,
        block_tokens=512,
        blocks=(46, 47),
        tail_block=2354,
    )
    (even,) = read([row(0, 1024)])
    assert (even.blocks, even.tail_block) == ((0, 1), None)


def test_rows_may_lack_ids_name_a_session_and_come_in_other_block_sizes() -> None:
    plain, chat = read(['{"timestamp":0,"input_length":9,"output_length":0}', row(5, 9, session_id="s")])
    assert (plain.blocks, plain.tail_block, plain.failed) == ((), None, True)
    assert (chat.session, chat.failed) == ("s", False)
    (small,) = read([row(0, 40, hash_ids=[1, 2, 3])], block_tokens=16)
    assert (small.blocks, small.tail_block, small.block_tokens) == ((1, 2), 3, 16)


def test_stamps_rounded_to_three_seconds_are_spread_over_them_in_order() -> None:
    found = [r.t_s for r in read(rounded(1500))]
    assert found == sorted(found)
    assert all(3 * (n // 10) <= t_s < 3 * (n // 10 + 1) for n, t_s in enumerate(found))
    assert len(set(found)) == 1500
    late = sum(t_s % 3 > 1.5 for t_s in found)
    assert 650 < late < 850


def test_spreading_is_the_same_in_every_reading_and_can_be_switched_off() -> None:
    assert list(read(rounded(50))) == list(read(rounded(50)))
    exact = [r.t_s for r in read(rounded(50), spread=False)]
    assert exact[8:13] == [0.0, 0.0, 3.0, 2.999, 3.0]


def test_stamps_that_are_not_rounded_stay_as_they_are() -> None:
    stamps = [0, 17, 3000, 4391, 4391, 9000]
    assert [r.t_s * 1e3 for r in read(row(s, 5) for s in stamps)] == pytest.approx(stamps)
    lone = [0, 3000, 6000]
    assert [r.t_s * 1e3 for r in read(row(s, 5) for s in lone)] == lone
    assert list(read([])) == []


def test_no_more_than_a_thousand_rows_are_read_ahead() -> None:
    read_rows = 0

    def endless() -> Iterator[str]:
        nonlocal read_rows
        while True:
            read_rows += 1
            yield row(read_rows * 7, 5)

    assert len(list(islice(read(endless()), 10))) == 10
    assert read_rows <= 1001


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        (
            row(0, 1100, hash_ids=[1, 2]),
            "hash_ids",
            "2 ids for a prompt of 1100 tokens, which has 3 blocks of 512",
        ),
        (row(0, 1100, output_length=-1), "output_length", "Expected `int` >= 0"),
        (row(0, 512, hash_ids=["a"]), "hash_ids", "Expected `int`, got `str`"),
        ('{"timestamp":0,"input_length":9}', "output_length", "missing required field"),
        ("[1]", "row", "Expected `object`, got `array`"),
        ('{"timestamp":', "row", "truncated; write one JSON object in each line"),
    ],
)
def test_bad_rows_are_named_by_line_and_field(line: str, field: str, problem: str) -> None:
    with pytest.raises(TraceError, match=problem) as caught:
        list(read([row(0, 5), "", line]))
    assert (caught.value.line, caught.value.field) == (3, field)


def test_a_trace_can_be_written_as_mooncake_did() -> None:
    original = [
        '{"timestamp":0,"input_length":1100,"output_length":500,"hash_ids":[0,1,2]}',
        '{"timestamp":2999,"input_length":512,"output_length":1,"hash_ids":[0],"session_id":"s"}',
        '{"timestamp":3000.5,"input_length":7,"output_length":2}',
    ]
    assert list(write(read(original, spread=False))) == original


def test_a_partial_block_without_an_id_gets_one_that_nobody_shares() -> None:
    records = [
        TraceRecord(id=name, t_s=0, input_tokens=20, output_tokens=1, blocks=(7,)) for name in ("one", "two")
    ]
    ids = [json.loads(line)["hash_ids"] for line in write(records)]
    assert ids == [[7, -1], [7, -2]]


def test_a_prompt_longer_than_its_blocks_cannot_be_written() -> None:
    record = TraceRecord(id="long", t_s=0, input_tokens=40, output_tokens=1, blocks=(7,))
    with pytest.raises(ValueError, match="blocks: record long has 1 ids for 2 full blocks of 16 tokens"):
        list(write([record]))
