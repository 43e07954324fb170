from __future__ import annotations

import pytest

from millrace.core.trace import TraceRecord, inspect


def record(t_s: float, blocks: tuple[int, ...] = (), **fields: object) -> TraceRecord:
    sizes = {"id": f"at-{t_s}", "input_tokens": 40, "output_tokens": 10}
    return TraceRecord(t_s=t_s, blocks=blocks, **(sizes | fields))  # type: ignore[arg-type]


def test_a_trace_is_counted_and_timed() -> None:
    found = inspect([record(5.0), record(6.0, output_tokens=0, failed=True), record(9.0, output_tokens=20)])
    assert (found.requests, found.failed, found.disordered) == (3, 1, 0)
    assert (found.duration_s, found.rate_per_s) == (4.0, 0.75)
    assert (found.input_tokens.mean, found.output_tokens.mean, found.output_tokens.max) == (40, 10, 20)
    assert found.interarrival_cv == 0.5


def test_even_arrivals_are_not_bursty_and_bunches_are() -> None:
    even = inspect([record(float(t)) for t in range(120)])
    assert even.burstiness_1s == even.burstiness_10s == even.burstiness_60s == 0.0
    assert even.interarrival_cv == 0.0
    bunched = inspect([record(10.0 * (n // 10)) for n in range(120)])
    assert bunched.burstiness_1s == pytest.approx(9, rel=0.02)
    assert bunched.burstiness_10s == 0.0


def test_requests_out_of_order_are_counted_and_do_not_disturb() -> None:
    found = inspect([record(3.0), record(1.0), record(2.0), record(4.0)])
    assert (found.disordered, found.duration_s, found.interarrival_cv) == (2, 3.0, 0.0)


def test_an_instant_has_no_rate() -> None:
    found = inspect([record(7.0), record(7.0)])
    assert found.rate_per_s is found.interarrival_cv is found.burstiness_1s is None
    assert inspect([record(7.0)]).interarrival_cv is None


def test_models_tenants_and_sessions_are_counted() -> None:
    found = inspect(
        [record(0, model="a", session="s"), record(1, model="a", tenant="t", session="s"), record(2)]
    )
    assert (found.models, found.tenants, found.sessions) == ({"a": 2, "": 1}, {"": 2, "t": 1}, 1)


def test_reuse_counts_leading_blocks_seen_before_and_never_partial_ones() -> None:
    trace = [
        record(0, (1, 2), tail_block=10),
        record(1, (1, 2), tail_block=10),
        record(2, (1, 3), tail_block=11),
        record(3, (4, 2), tail_block=12),
    ]
    found = inspect(trace)
    assert (found.blocks, found.unique_blocks) == (12, 4)
    assert found.block_hit_ratio == 3 / 12
    assert found.token_hit_ratio == 3 * 16 / 160


def test_a_trace_without_blocks_has_no_reuse_to_speak_of() -> None:
    found = inspect([record(0)])
    assert found.block_hit_ratio is found.token_hit_ratio is None


def test_a_trace_without_requests_cannot_be_described() -> None:
    with pytest.raises(ValueError, match="records is empty"):
        inspect([])
