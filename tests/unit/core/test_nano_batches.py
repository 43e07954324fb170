"""A searched schedule keeps to the rules, beats one operation after the other, and not the bound."""

from __future__ import annotations

import pytest

from millrace.core.catalogue import device, model
from millrace.core.layer_work import Mix
from millrace.core.nano_batches import Schedule, search
from millrace.core.overlap import violations


def found(name: str, devices: int, mix: Mix, together: float = 1.0) -> Schedule:
    return search(model(name), device("a100-80g"), devices, mix, layers=6, together=together)


@pytest.mark.parametrize(("name", "devices"), [("llama-2-70b", 8), ("llama-3-70b", 4), ("llama-2-7b", 2)])
@pytest.mark.parametrize("lengths", [(512, 512), (4000, 100), (100, 2000)])
def test_a_found_schedule_is_lawful_and_lies_between_the_bound_and_the_sequence(
    name: str, devices: int, lengths: tuple[int, int]
) -> None:
    mix = Mix(step_tokens=2048, prompt_tokens=lengths[0], answer_tokens=lengths[1])
    free, contended = found(name, devices, mix), found(name, devices, mix, 0.8)
    for one in (free, contended):
        assert violations(one.operations, one.runs) == []
        assert one.bound_s < one.seconds
        assert sum(one.shares) == pytest.approx(1)
    assert free.gain >= contended.gain
    assert free.gain > 1


def test_sizes_are_changed_where_that_is_quicker() -> None:
    mix = Mix(step_tokens=2048, prompt_tokens=512, answer_tokens=1024)
    assert found("llama-2-70b", 8, mix).gain > 1.4
    assert len(set(found("llama-2-70b", 8, mix).shares)) > 1
