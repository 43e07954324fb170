"""Tensors go where they do least harm, and where they fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.memory_tiers import Tier
from millrace.core.placement import Host, Tensor, best_whole, interleaved, placed

AMOUNT = st.floats(0, 20)
TENSORS = st.lists(
    st.builds(
        Tensor, name=st.just("t"), size_bytes=st.floats(1, 10), updated_bytes=AMOUNT, sent_bytes=AMOUNT
    ),
    min_size=1,
    max_size=6,
)


def host(local_bytes: float, far_bytes: float = 1e6, compute_s: float = 0.0) -> Host:
    return Host(
        local=Tier(name="local", capacity_bytes=local_bytes, bytes_per_s=100, source="made up"),
        far=Tier(name="far", capacity_bytes=far_bytes, bytes_per_s=25, source="made up"),
        link_bytes_per_s=50,
        compute_s=compute_s,
    )


def test_the_optimizer_waits_for_every_byte_and_sending_hides_behind_computing() -> None:
    state = Tensor(name="m", size_bytes=100, updated_bytes=200)
    kept = Tensor(name="activations", size_bytes=100, sent_bytes=100)
    assert host(1000).step_s([state], (1.0,)) == 2
    assert host(1000).step_s([state], (0.0,)) == 8
    assert host(1000).step_s([state], (0.5,)) == 4
    assert host(1000).step_s([kept], (1.0,)) == 2
    assert host(1000).step_s([kept], (0.0,)) == 4
    assert host(1000, compute_s=5).step_s([state, kept], (1.0, 0.0)) == 7


def test_state_of_the_optimizer_stays_local_and_activations_go() -> None:
    tensors = [
        Tensor(name="activations", size_bytes=100, sent_bytes=100),
        Tensor(name="m", size_bytes=100, updated_bytes=200),
    ]
    assert placed(tensors, host(100, compute_s=10)) == (0.0, 1.0)


def test_two_memories_side_by_side_beat_one() -> None:
    tensors = [Tensor(name=name, size_bytes=100, updated_bytes=200) for name in "mvwxy"]
    shares = placed(tensors, host(1000))
    assert sum(shares) == 4
    assert host(1000).step_s(tensors, shares) == 8


def test_interleaving_fills_both_memories_alike_until_local_is_full() -> None:
    tensors = [Tensor(name="m", size_bytes=100), Tensor(name="v", size_bytes=100)]
    assert interleaved(tensors, host(1000)) == (0.5, 0.5)
    assert interleaved(tensors, host(50)) == (0.25, 0.25)


@given(TENSORS, st.floats(0.1, 1.0))
def test_what_is_placed_fits_and_is_never_slower_than_everything_far(
    tensors: list[Tensor], part: float
) -> None:
    machine = host(part * sum(tensor.size_bytes for tensor in tensors))
    shares = placed(tensors, machine)
    assert machine.fits(tensors, shares)
    assert all(0 <= share <= 1 for share in shares)
    assert machine.step_s(tensors, shares) <= machine.step_s(tensors, (0.0,) * len(tensors)) + 1e-9


def test_trying_everything_finds_the_best_whole_placement_or_none() -> None:
    tensors = [
        Tensor(name="a", size_bytes=60, updated_bytes=60),
        Tensor(name="b", size_bytes=50, updated_bytes=50),
        Tensor(name="c", size_bytes=50, updated_bytes=50),
    ]
    assert best_whole(tensors, host(100)) == (0.0, 1.0, 1.0)
    assert best_whole(tensors, host(100, far_bytes=10)) is None


def test_tensors_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match="the tensors take 100 bytes and both memories have 60"):
        placed([Tensor(name="m", size_bytes=100)], host(10, far_bytes=50))
