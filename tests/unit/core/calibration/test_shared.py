"""Engines of known prices that slow each other down by known factors: the fit finds both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millrace.core.calibration import Timed, fit_shared
from millrace.core.cost import Linear, StepShape

TRUTH = Linear(base_s=0.002, per_token_s=8e-5, per_context_s=5e-7)
SLOWDOWNS = (1.0, 1.2, 1.5)


def _shapes() -> Iterator[StepShape]:
    for context in range(20, 420, 10):
        yield StepShape(decodes=1, decode_context_tokens=context, emits=1)
        tokens = context // 2
        yield StepShape(prefills=1, prefill_tokens=tokens, prefill_attended_tokens=tokens * tokens, emits=1)


def _steps(busy: tuple[int, ...]) -> list[Timed]:
    return [
        Timed(shape=shape, seconds=TRUTH.step_s(shape) * SLOWDOWNS[k - 1], busy=k)
        for shape in _shapes()
        for k in busy
    ]


def test_price_and_company_are_told_apart() -> None:
    found = fit_shared(_steps((1, 2, 3)), engines=3)
    assert found.slowdowns == pytest.approx(SLOWDOWNS, rel=0.01)
    for shape in _shapes():
        assert found.cost.step_s(shape) == pytest.approx(TRUTH.step_s(shape), rel=0.01)
    assert found.cost.error is not None
    assert found.cost.error.mean < 0.01


def test_a_step_is_as_far_off_as_it_took_longer() -> None:
    found = fit_shared(_steps((1, 2, 3)), engines=3)
    one = Timed(shape=next(_shapes()), seconds=1.0, busy=2)
    assert found.off_by(one) == pytest.approx(1.0 / (TRUTH.step_s(one.shape) * 1.2), rel=0.01)


def test_company_that_never_was_slows_down_like_less_of_it() -> None:
    assert fit_shared(_steps((1, 2)), engines=4).slowdowns == pytest.approx((1.0, 1.2, 1.2, 1.2), rel=0.01)


def test_engines_that_never_were_alone_are_priced_as_in_the_best_company() -> None:
    found = fit_shared(_steps((2, 3)), engines=3)
    assert found.slowdowns == pytest.approx((1.0, 1.0, 1.25), rel=0.01)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="measure at least 10"):
        fit_shared(_steps((1,))[:5], engines=1)
