"""A calibration times the steps that an engine meets, each once or more, and leaves the executor empty."""

from __future__ import annotations

from pathlib import Path

import torch

from millrace.core.cost import fit
from millrace.engine.calibration import measure, points
from millrace.engine.executor import TorchExecutor
from millrace.engine.kv import KvShape
from millrace.engine.weights import load_model
from tests.unit.engine.checkpoints import save_checkpoint

SHAPE = KvShape(layers=1, blocks=40, block_tokens=16, heads=1, head_size=8)


def test_points_stay_within_the_limits() -> None:
    found = points(SHAPE, sequences=8, step_tokens=64, context_tokens=500)
    assert {one.decodes for one in found} == {0, 1, 2, 3, 4, 6, 8}
    assert max(one.decodes + one.chunk for one in found) <= 64
    assert max(one.start + one.chunk for one in found) <= 500
    assert any(one.decodes and one.chunk for one in found)
    assert len(set(found)) == len(found)


def test_points_come_in_an_order_that_is_always_the_same() -> None:
    limits = {"sequences": 8, "step_tokens": 64, "context_tokens": 500}
    assert points(SHAPE, **limits) == points(SHAPE, **limits)


def test_what_is_measured_can_be_fitted_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "tiny")
    model = load_model(tmp_path / "tiny", dtype=torch.float32)
    executor = TorchExecutor(model, kv_blocks=64, block_tokens=16)
    first = measure(executor, 0, sequences=4, step_tokens=48)
    again = measure(executor, 0, sequences=4, step_tokens=48)
    assert [shape for shape, _ in first] == [shape for shape, _ in again]
    assert fit(first).step_s(first[0][0]) > 0
