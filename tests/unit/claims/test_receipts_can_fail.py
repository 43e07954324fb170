"""Receipts measure: with other data or other settings the figures change, and claims fail."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.claims import apex, burstgpt, cloudmatrix_infer, fenghuang, zaya1_amd
from millrace.claims.measured import all_reduce, collectives
from millrace.control import Controller, ControlSettings
from millrace.core.catalogue import device
from millrace.core.cost import Linear, efficiency_of
from millrace.core.paging import least_local
from millrace.core.pools import fit_device
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.policies import load
from millrace.simulate import ServerSpec, jobs_of, simulate


def test_collectives_that_follow_no_line_fail() -> None:
    bent = [
        replace(one, seconds={size: s * (1 + 9 * (size % 3 == 0)) for size, s in one.seconds.items()})
        for one in collectives()
    ]
    assert all(check.passed for check in zaya1_amd.measure())
    failed = [check.what for check in zaya1_amd.measure(bent) if not check.passed]
    assert "least R2 of a line, one rail" in failed


def test_measured_collectives_agree_with_the_shares_that_steps_are_priced_with() -> None:
    for machine, name in (("a100_dgx", "a100-80g"), ("h100_dgx", "h100")):
        fitted = all_reduce(machine, 8).fitted()
        link = device(name).link_bytes_per_s
        assert link
        ring_s = 2 * 7 / 8 / (link * efficiency_of(name).link)
        assert fitted.per_byte_s == pytest.approx(ring_s, rel=0.2)


def test_an_all_reduce_that_nobody_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="no all-reduce over 3 devices of one a100_dgx"):
        all_reduce("a100_dgx", 3)


def test_minutes_are_dealt_out_in_turn_and_keep_their_seconds() -> None:
    records = [
        TraceRecord(id=str(t), t_s=float(t), input_tokens=1, output_tokens=1) for t in (1, 59, 60, 125, 190)
    ]
    even, odd = burstgpt.minutes(records)
    assert [(r.id, r.t_s) for r in even] == [("1", 1), ("59", 59), ("125", 65)]
    assert [(r.id, r.t_s) for r in odd] == [("60", 0), ("190", 70)]


def test_averages_keep_the_rate_and_lose_the_lengths() -> None:
    records = [TraceRecord(id=str(n), t_s=float(n), input_tokens=n, output_tokens=10) for n in range(1, 120)]
    found = burstgpt.averages(records)
    assert found.periods[0].rate_per_s == pytest.approx(119 / 120)
    assert found.lengths.strata[0].input_tokens == (60, 60)


def test_the_meter_counts_every_step_once() -> None:
    meter = apex.Meter(Linear(base_s=1.0, power_w=100.0))
    record = TraceRecord(id="a", t_s=0.0, input_tokens=10, output_tokens=5)
    done = simulate(
        jobs_of([record], "m", Slo()),
        [ServerSpec(id="r", spec=ReplicaSpec(models=("m",), limits=Limits()), cost=meter)],
        Controller(load("routing", "least_work"), load("queueing", "fcfs"), ControlSettings()),
        load("batching", "split_fuse"),
        leaping=False,
    )
    assert done.measured.duration_s == meter.busy_s == 5
    assert meter.joules == 500


def test_a_slow_remote_memory_saves_nothing() -> None:
    spec = fenghuang.MODELS[0]
    pages = fenghuang.pages_of(spec, 8)
    slow = least_local(pages, fenghuang.remote(1e9), loss=fenghuang.LOSS)
    assert slow.local_bytes == sum(page.size_bytes for page in pages)


@pytest.mark.parametrize(("name", "billions"), [("gpt-3", 175), ("grok-1", 314), ("qwen3-235b", 235)])
def test_the_models_have_as_many_parameters_as_published(name: str, billions: float) -> None:
    spec = next(spec for spec in fenghuang.MODELS if spec.name == name)
    assert spec.parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_operating_points_that_make_no_sense_have_a_floor_below_zero() -> None:
    assert fit_device([(0.050, 3000.0), (0.015, 538.0)], 6688.0).floor_s > 0
    assert fit_device([(0.050, 1000.0), (0.005, 4000.0)], 6688.0).floor_s < 0
    assert len(cloudmatrix_infer.mixes()) == 5
