"""First come, first served: the order of arrival, without looking further than asked."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.core.request import Request
from millrace.policies.queueing.fcfs import Policy
from millrace.testing import fakes


def test_the_order_of_arrival_is_kept() -> None:
    held = [fakes.request(name, priority=n) for n, name in enumerate("cab")]
    assert list(Policy().order(held, fakes.fleet())) == held


def test_asking_for_the_first_looks_at_no_other() -> None:
    seen = []

    def held() -> Iterator[Request]:
        for name in "abc":
            seen.append(name)
            yield fakes.request(name)

    first = next(iter(Policy().order(held(), fakes.fleet())))
    assert (first.id, seen) == ("a", ["a"])
