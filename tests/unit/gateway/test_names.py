"""A name stands for the same model every time, and shares come out as they were weighted."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.cli.simulating.models import Models
from millrace.core.trace import TraceRecord
from millrace.gateway.names import Names
from millrace.testing import fakes

SERVED = frozenset(("llama", "qwen"))


def test_a_request_for_a_served_model_is_left_as_it_is() -> None:
    asked = fakes.request(model="llama")
    assert Names({"chat": "qwen", "*": "qwen"}, {"qwen": ("llama",)}).resolve(asked, SERVED) is asked


def test_an_alias_stands_for_its_model() -> None:
    assert Names({"chat": "qwen"}, {}).resolve(fakes.request(model="chat"), SERVED).model == "qwen"


def test_any_other_name_is_the_catch_alls() -> None:
    names = Names({"chat": "qwen", "*": "llama"}, {})
    assert names.resolve(fakes.request(model="gpt-4o"), SERVED).model == "llama"
    assert names.resolve(fakes.request(model="chat"), SERVED).model == "qwen"
    assert Names({}, {}).resolve(fakes.request(model="gpt-4o"), SERVED).model == "gpt-4o"


@pytest.mark.parametrize("weights", [{"llama": 90, "qwen": 10}, {"llama": 0.9, "qwen": 0.1}])
def test_shares_come_out_as_they_were_weighted(weights: dict[str, float]) -> None:
    names = Names({"chat": weights}, {})
    asked = [fakes.request(f"q{n}", model="chat") for n in range(4000)]
    counts = Counter(names.resolve(one, SERVED).model for one in asked)
    assert counts.keys() == weights.keys()
    assert counts["llama"] == pytest.approx(3600, abs=100)


def test_a_share_belongs_to_the_conversation_or_else_to_the_request() -> None:
    names = Names({"chat": {"llama": 1, "qwen": 1}}, {})
    talks = [fakes.request(f"q{n}", model="chat", session=f"s{n % 20}") for n in range(200)]
    chosen = {(one.session, names.resolve(one, SERVED).model) for one in talks}
    assert len(chosen) == 20
    assert {model for _, model in chosen} == SERVED
    asked = fakes.request("q", model="chat")
    assert names.resolve(asked, SERVED) == Names({"chat": {"llama": 1, "qwen": 1}}, {}).resolve(asked, SERVED)


def test_the_simulator_gives_every_conversation_the_same_share() -> None:
    shares = {"llama": 70.0, "qwen": 20.0, "phi": 10.0}
    names, simulated = Names({"chat": shares}, {}), Models(shares=shares)
    for n in range(200):
        session = f"s{n}" if n % 2 else None
        asked = names.resolve(fakes.request(f"q{n}", model="chat", session=session), SERVED)
        record = TraceRecord(id=f"q{n}", t_s=0.0, input_tokens=1, output_tokens=1, session=session)
        assert asked.model == simulated.asked_by(record)


def test_a_model_brings_what_it_falls_back_on() -> None:
    names = Names({"chat": "llama"}, {"llama": ("qwen", "phi")})
    for name in ("chat", "llama"):
        resolved = names.resolve(fakes.request(model=name), SERVED)
        assert (resolved.model, resolved.fallbacks) == ("llama", ("qwen", "phi"))
    assert names.resolve(fakes.request(model="qwen"), SERVED).fallbacks == ()
