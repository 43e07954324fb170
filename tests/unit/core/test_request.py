"""Requests are values that travel as JSON."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from millrace.core.request import Request, Slo
from millrace.testing import fakes, strategies


@given(strategies.requests())
def test_a_request_survives_a_log(request: Request) -> None:
    assert msgspec.json.decode(msgspec.json.encode(request), type=Request) == request


def test_a_plain_request_costs_few_bytes_in_a_log() -> None:
    assert msgspec.json.decode(msgspec.json.encode(fakes.request("q"))) == {
        "id": "q",
        "model": "m",
        "prompt_tokens": 100,
        "max_tokens": 16,
    }


def test_a_request_promises_nothing_unless_told() -> None:
    assert fakes.request().slo == Slo(ttft_s=None, tpot_s=None)


def test_a_request_never_changes() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        fakes.request().priority = 3  # type: ignore[misc]


def test_the_alternatives_of_a_request_are_its_fallbacks_in_order() -> None:
    asked = fakes.request(model="m", fallbacks=("n", "o"))
    assert [(one.model, one.fallbacks) for one in asked.alternatives()] == [("n", ("o",)), ("o", ())]
    assert list(fakes.request().alternatives()) == []
