"""Every receipt, measured at most once for all tests that look at it."""

from __future__ import annotations

import pytest

from millrace.claims import Verdict, measure


class Measured(dict[str, Verdict]):
    """What is measured of each claim, by name, when somebody asks for it."""

    def __missing__(self, name: str) -> Verdict:
        self[name] = measure(name)
        return self[name]


@pytest.fixture(scope="session")
def verdicts() -> Measured:
    """What is measured of every claim."""
    return Measured()
