"""Traces of any shape survive their formats, and reshaping keeps what it promises to keep."""

from __future__ import annotations

from itertools import count, islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.core.request import Slo
from millrace.core.trace import (
    Format,
    TraceError,
    TraceRecord,
    inspect,
    read_trace,
    scale_lengths,
    scale_rate,
    window,
    write_trace,
)

tokens = st.integers(0, 10**6)
seconds = st.floats(0, 1e7, allow_nan=False)
names = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ids = st.integers(-(2**63), 2**127)


@st.composite
def records(draw: st.DrawFn) -> TraceRecord:
    blocks = tuple(draw(st.lists(ids, max_size=6)))
    block_tokens = draw(st.sampled_from([1, 16, 512]))
    return TraceRecord(
        id=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
        t_s=draw(seconds),
        input_tokens=len(blocks) * block_tokens,
        output_tokens=draw(tokens),
        session=draw(names),
        turn=draw(st.none() | tokens),
        parent=draw(names),
        model=draw(names),
        tenant=draw(names),
        priority=draw(st.integers(-5, 5)),
        max_tokens=draw(st.none() | tokens),
        block_tokens=block_tokens,
        blocks=blocks,
        tail_block=draw(st.none() | ids),
        slo=Slo(ttft_s=draw(st.none() | seconds), tpot_s=draw(st.none() | seconds)),
        adapter=draw(names),
        images=draw(tokens),
        kind=draw(names),
        elapsed_s=draw(st.none() | seconds),
        failed=draw(st.booleans()),
    )


traces = st.lists(records(), min_size=1, max_size=4)
plain = st.builds(
    TraceRecord,
    id=st.just("x"),
    t_s=seconds,
    input_tokens=tokens,
    output_tokens=tokens,
    model=names,
    blocks=st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
plain_traces = st.lists(plain, min_size=1, max_size=8)


@given(traces)
def test_our_own_format_loses_nothing(trace: list[TraceRecord]) -> None:
    assert list(read_trace(write_trace(trace, "millrace"))) == trace


@given(traces, st.sampled_from(["azure", "mooncake", "burstgpt"]))
def test_every_format_keeps_times_and_lengths(trace: list[TraceRecord], format: Format) -> None:
    trace = [replace(r, tail_block=None, failed=r.output_tokens == 0) for r in trace]
    if format == "mooncake":
        trace = [replace(r, block_tokens=512, input_tokens=512 * len(r.blocks)) for r in trace]
    found = list(read_trace(write_trace(trace, format), spread=False))
    start_s = trace[0].t_s if format == "azure" else 0.0
    assert [r.t_s for r in found] == pytest.approx([r.t_s - start_s for r in trace], abs=3e-7)
    assert [(r.input_tokens, r.output_tokens, r.failed) for r in found] == [
        (r.input_tokens, r.output_tokens, r.failed) for r in trace
    ]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20).map(sorted))
def test_azure_ticks_of_a_hundred_nanoseconds_are_exact(ticks: list[int]) -> None:
    trace = [TraceRecord(id="x", t_s=(t - ticks[0]) / 10**7, input_tokens=1, output_tokens=1) for t in ticks]
    assert [r.t_s for r in read_trace(write_trace(trace, "azure"))] == [r.t_s for r in trace]


@given(
    st.sampled_from(["millrace", "azure", "mooncake", "burstgpt"]),
    st.integers(1, 30),
    st.data(),
)
def test_a_bad_row_is_named_by_its_line_wherever_it_is(
    format: Format, length: int, data: st.DataObject
) -> None:
    trace = [TraceRecord(id="x", t_s=n, input_tokens=55555, output_tokens=1) for n in range(length + 1)]
    lines = list(write_trace(trace, format))
    bad = data.draw(st.integers(1, len(lines) - 1))
    lines[bad] = data.draw(st.sampled_from(["nonsense", lines[bad].replace("55555", '"many"')]))
    with pytest.raises(TraceError) as caught:
        list(read_trace(lines))
    assert caught.value.line == bad + 1
    assert f"line {bad + 1}, {caught.value.field}" in str(caught.value)


@given(plain_traces, st.floats(0.01, 100))
def test_scaling_the_rate_keeps_order_and_gaps(trace: list[TraceRecord], factor: float) -> None:
    trace.sort(key=lambda r: r.t_s)
    found = list(scale_rate(trace, factor))
    assert all(a.t_s <= b.t_s for a, b in pairwise(found))
    assert [r.t_s * factor for r in found] == pytest.approx([r.t_s for r in trace])


@given(plain_traces, st.floats(0.01, 100), st.floats(0.01, 100))
def test_scaled_lengths_keep_order_and_never_vanish(
    trace: list[TraceRecord], ins: float, outs: float
) -> None:
    trace.sort(key=lambda r: r.input_tokens)
    found = list(scale_lengths(trace, input_factor=ins, output_factor=outs))
    assert all(a.input_tokens <= b.input_tokens for a, b in pairwise(found))
    assert all(
        bool(new.input_tokens) == bool(old.input_tokens) for new, old in zip(found, trace, strict=True)
    )
    assert all(
        bool(new.output_tokens) == bool(old.output_tokens) for new, old in zip(found, trace, strict=True)
    )
    assert all(len(r.blocks) <= r.input_tokens // r.block_tokens for r in found)


@given(
    st.lists(st.integers(0, 3), max_size=12),
    st.lists(st.integers(0, 3), max_size=12),
    st.floats(0.05, 8),
)
def test_scaled_prompts_share_their_share_of_a_prefix(
    ours: list[int], theirs: list[int], factor: float
) -> None:
    shared = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    pair = []
    for path in (ours, theirs):
        # An id stands for its block and all in front of it, as in a real trace.
        blocks = tuple(int("1" + "".join(map(str, path[: i + 1])), 4) for i in range(len(path)))
        pair.append(TraceRecord(id="x", t_s=0, input_tokens=16 * len(blocks), output_tokens=1, blocks=blocks))
    left, right = (r.blocks for r in scale_lengths(pair, input_factor=factor))
    common = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    assert set(left[common:]).isdisjoint(right[common:])
    assert common <= shared * factor + 1e-6
    assert common >= min(len(left), len(right), shared * factor - 1) - 1e-6


@given(plain_traces, seconds, seconds)
def test_a_window_keeps_what_came_in_it(trace: list[TraceRecord], start_s: float, length_s: float) -> None:
    end_s = start_s + length_s + 1.0
    found = list(window(trace, start_s, end_s))
    assert len(found) == sum(start_s <= r.t_s < end_s for r in trace)
    assert all(r.t_s >= 0 for r in found)


@given(plain_traces)
def test_a_description_adds_up(trace: list[TraceRecord]) -> None:
    found = inspect(trace)
    assert sum(found.models.values()) == sum(found.tenants.values()) == found.requests == len(trace)
    assert found.unique_blocks <= found.blocks
    assert 0 <= (found.block_hit_ratio or 0) <= 1


@pytest.mark.parametrize("format", ["millrace", "azure", "mooncake", "burstgpt"])
def test_a_reader_and_a_writer_hold_only_a_little_of_an_endless_trace(format: Format) -> None:
    endless = (TraceRecord(id=f"{n}", t_s=n * 0.7, input_tokens=9, output_tokens=1) for n in count())
    assert len(list(islice(read_trace(write_trace(endless, format)), 2000))) == 2000
