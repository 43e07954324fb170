"""The figures that policies predict with are what a cost model says of steps that tell them."""

from __future__ import annotations

import pytest

from millrace.core.cost import StepShape
from millrace.core.fleet_spec import parse_fleet
from millrace.core.replica import Limits
from millrace.core.speeds import (
    attended_s,
    context_s,
    decode_context_s,
    decode_sequence_s,
    decode_step_s,
    prefill_tokens_per_s,
)


class Straight:
    """1 ms a step, 10 us a token, 1 ns a pair of tokens, 20 ns a cached token."""

    needs_lengths = False

    def step_s(self, shape: StepShape) -> float:
        pairs, context = shape.prefill_attended_tokens, shape.decode_context_tokens
        return 1e-3 + 1e-5 * shape.tokens + 1e-9 * pairs + 2e-8 * context

    def step_j(self, shape: StepShape) -> float:
        return 0.0

    price_per_h = None
    expected_error = "none"


@pytest.mark.parametrize("step_tokens", [1, 8, 512, 8192])
def test_what_a_straight_cost_model_says_is_found_again(step_tokens: int) -> None:
    limits = Limits(step_tokens=step_tokens)
    assert attended_s(Straight(), limits) == pytest.approx(1e-9)
    assert context_s(Straight(), limits) == pytest.approx(2e-8)
    whole_s = 1e-3 + 1e-5 * step_tokens + 1e-9 * step_tokens * (step_tokens + 1) / 2
    assert prefill_tokens_per_s(Straight(), limits) == pytest.approx(step_tokens / whole_s)


def test_a_decode_step_is_one_of_a_moderately_loaded_server() -> None:
    assert decode_step_s(Straight(), Limits()) == pytest.approx(1e-3 + 32e-5 + 32 * 1024 * 2e-8)
    assert decode_step_s(Straight(), Limits(sequences=2)) == pytest.approx(1e-3 + 2e-5 + 2 * 1024 * 2e-8)


def test_a_described_fleet_tells_its_speeds() -> None:
    (group,) = parse_fleet("2x h100 llama-3-8b")
    spec = group.replica_spec()
    assert spec.attended_s is not None
    assert spec.context_s is not None
    assert spec.attended_s > 0
    assert spec.context_s > 0


@pytest.mark.parametrize("sequences", [1, 2, 32, 256])
def test_a_decode_step_grows_with_each_request_and_each_cached_token(sequences: int) -> None:
    limits = Limits(sequences=sequences)
    assert decode_context_s(Straight(), limits) == pytest.approx(2e-8)
    each_s = decode_sequence_s(Straight(), limits)
    assert each_s == (0.0 if sequences == 1 else pytest.approx(1e-5 + 2e-8))
