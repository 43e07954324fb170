from __future__ import annotations

import pytest

from millrace.core.catalogue import device
from millrace.core.cost import Collective, efficiency_of, fit_collective
from millrace.core.cost.collective import expected


def test_a_ring_sends_each_byte_twice_but_for_its_own_part() -> None:
    two, eight = (expected(device("h100"), efficiency_of("h100"), n) for n in (2, 8))
    assert two.all_reduce_s(0) == efficiency_of("h100").all_reduce_s
    assert two.per_byte_s == pytest.approx(1 / (450e9 * 0.773))
    assert eight.per_byte_s == pytest.approx(2 * 7 / 8 * two.per_byte_s)
    assert "0.773 of the data sheet's link" in two.source


def test_among_more_devices_a_host_s_links_are_slower() -> None:
    two, three, eight = (expected(device("l40s"), efficiency_of("l40s"), n) for n in (2, 3, 8))
    assert two.start_s == three.start_s < eight.start_s
    # NCCL took 121 us and 2.6 ms for a MiB between two and among eight L40S (AIConfigurator's tables).
    assert two.all_reduce_s(1 << 20) == pytest.approx(121e-6, rel=0.1)
    assert eight.all_reduce_s(1 << 20) == pytest.approx(2.6e-3, rel=0.2)


def test_gathering_moves_half_of_what_summing_does() -> None:
    link = Collective(devices=2, start_s=1e-5, per_byte_s=1e-9, source="made up")
    assert link.gather_s(2000) - 1e-5 == pytest.approx((link.all_reduce_s(2000) - 1e-5) / 2)


def test_a_start_and_a_rate_are_found_again() -> None:
    timed = {2**n: 2e-5 + 2**n * 1e-10 for n in range(10, 27)}
    found = fit_collective(timed, 4, "made up")
    assert (found.devices, found.source) == (4, "made up")
    assert (found.start_s, found.per_byte_s) == pytest.approx((2e-5, 1e-10), rel=1e-4)


def test_one_size_tells_no_rate() -> None:
    with pytest.raises(ValueError, match="an all-reduce over 4 devices was timed at 1 sizes; time two"):
        fit_collective({1024: 1e-5}, 4, "made up")


def test_devices_without_a_link_do_not_work_together() -> None:
    with pytest.raises(ValueError, match="a cpu has no link to another, so 2 of them cannot work together"):
        expected(device("cpu"), efficiency_of("cpu"), 2)
