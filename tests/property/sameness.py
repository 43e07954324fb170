"""What leaping and stepping owe each other and the fleet, whatever else a world has in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from millrace.control import Controller
from millrace.control.log import replay
from millrace.core.outcome import Outcome
from millrace.simulate import Job


def assert_settled(
    jobs: Iterable[Job], outcomes: Iterable[Outcome], controller: Controller, log: Iterable[bytes]
) -> None:
    """Assert that each request ended once, leaves nothing on the books, and that the log replays."""
    assert Counter(outcome.id for outcome in outcomes) == Counter(job.request.id for job in jobs)
    assert not controller.state.flights
    for view in controller.state.replicas.values():
        assert (view.waiting, view.running, view.queued_tokens) == (0, 0, 0)
        assert (view.context_tokens, view.coming_tokens) == (0, 0)
    assert replay(log).first_difference is None


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
