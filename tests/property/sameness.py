"""What leaping and stepping owe each other, whatever else a world has in it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from millrace.core.outcome import Outcome


def assert_same(leapt: Iterable[Outcome], stepped: Iterable[Outcome]) -> None:
    """Assert that the same requests ended alike, at the same moments to a nanosecond."""
    found, expected = ({outcome.id: outcome for outcome in outcomes} for outcomes in (leapt, stepped))
    assert found.keys() == expected.keys()
    for name, outcome in found.items():
        oracle = expected[name]
        assert _decided(outcome) == _decided(oracle)
        assert outcome.first_token_s == pytest.approx(oracle.first_token_s, abs=1e-9)
        assert outcome.finished_s == pytest.approx(oracle.finished_s, abs=1e-9)


def _decided(outcome: Outcome) -> tuple[object, ...]:
    return (
        outcome.replica,
        outcome.prefilled_on,
        outcome.status,
        outcome.cached_tokens,
        outcome.output_tokens,
    )
