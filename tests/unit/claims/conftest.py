"""Every receipt, measured at most once for all tests that look at it, in processes without coverage."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from millrace.claims import Verdict, measure, names


class Measured(dict[str, Verdict]):
    """What is measured of each claim, by name; whoever asks first lets all of them be measured."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        super().__init__()
        self._pool = pool
        self._coming: dict[str, Future[Verdict]] = {}

    def __missing__(self, name: str) -> Verdict:
        if not self._coming:
            self._coming = {one: self._pool.submit(measure, one) for one in names()}
        self[name] = self._coming[name].result()
        return self[name]


@pytest.fixture(scope="session")
def verdicts() -> Iterator[Measured]:
    """What is measured of every claim."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield Measured(pool)
