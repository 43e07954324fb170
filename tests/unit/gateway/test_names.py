"""A name stands for the same model every time, and shares come out as they were weighted."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.cli.simulating.models import Models
from millrace.core.trace import TraceRecord
from millrace.gateway.names import Names

SERVED = frozenset(("llama", "qwen"))


def test_a_served_model_is_left_as_it_is() -> None:
    assert Names({"chat": "qwen", "*": "qwen"}, {}).model_for("llama", "q", SERVED) == "llama"


def test_an_alias_stands_for_its_model() -> None:
    assert Names({"chat": "qwen"}, {}).model_for("chat", "q", SERVED) == "qwen"


def test_any_other_name_is_the_catch_alls() -> None:
    names = Names({"chat": "qwen", "*": "llama"}, {})
    assert names.model_for("gpt-4o", "q", SERVED) == "llama"
    assert names.model_for("chat", "q", SERVED) == "qwen"
    assert Names({}, {}).model_for("gpt-4o", "q", SERVED) == "gpt-4o"


@pytest.mark.parametrize("weights", [{"llama": 90, "qwen": 10}, {"llama": 0.9, "qwen": 0.1}])
def test_shares_come_out_as_they_were_weighted(weights: dict[str, float]) -> None:
    names = Names({"chat": weights}, {})
    counts = Counter(names.model_for("chat", f"q{n}", SERVED) for n in range(4000))
    assert counts.keys() == weights.keys()
    assert counts["llama"] == pytest.approx(3600, abs=100)


def test_a_share_belongs_to_whoever_asks() -> None:
    names, again = (Names({"chat": {"llama": 1, "qwen": 1}}, {}) for _ in range(2))
    chosen = {who: names.model_for("chat", who, SERVED) for who in map(str, range(20))}
    assert set(chosen.values()) == SERVED
    assert all(again.model_for("chat", who, SERVED) == model for who, model in chosen.items())


def test_the_simulator_gives_every_conversation_the_same_share() -> None:
    shares = {"llama": 70.0, "qwen": 20.0, "phi": 10.0}
    names, simulated = Names({"chat": shares}, {}), Models(shares=shares)
    for n in range(200):
        session = f"s{n}" if n % 2 else None
        record = TraceRecord(id=f"q{n}", t_s=0.0, input_tokens=1, output_tokens=1, session=session)
        assert names.model_for("chat", session or f"q{n}", SERVED) == simulated.asked_by(record)
