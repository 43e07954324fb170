"""Which model each request of a trace asks for."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.cli.simulating.models import Models, ask, notes, parse_models
from millrace.core.trace import TraceRecord

SERVED = ("llama-3-8b", "qwen3-8b")


def record(name: str, model: str | None = None, session: str | None = None) -> TraceRecord:
    return TraceRecord(id=name, t_s=0.0, input_tokens=1, output_tokens=1, model=model, session=session)


def test_names_of_the_trace_become_models_of_the_fleet() -> None:
    models = parse_models("GPT-4=llama-3-8b, ChatGPT = qwen3-8b", SERVED)
    every = [record("a", "GPT-4"), record("b", "ChatGPT"), record("c"), record("d", "other")]
    assert [one.model for one in ask(every, models, "default")] == [
        "llama-3-8b",
        "qwen3-8b",
        "default",
        "other",
    ]


def test_shares_are_drawn_from_ids_and_come_out_as_asked_for() -> None:
    models = parse_models("llama-3-8b:70,qwen3-8b:30", SERVED)
    every = [record(f"q{n}", "whatever") for n in range(4000)]
    drawn = [models.asked_by(one) for one in every]
    assert drawn == [models.asked_by(one) for one in every]
    assert Counter(drawn)["llama-3-8b"] / 4000 == pytest.approx(0.7, abs=0.03)


def test_a_conversation_stays_with_its_model() -> None:
    models = parse_models("llama-3-8b:1,qwen3-8b:1", SERVED)
    assert len({models.asked_by(record(f"q{n}", session="s")) for n in range(30)}) == 1


def test_a_single_model_gets_everything() -> None:
    models = parse_models("qwen3-8b", SERVED)
    assert {models.asked_by(record(f"q{n}", "GPT-4")) for n in range(9)} == {"qwen3-8b"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("GPT-4=qwen", "unknown model of the fleet 'qwen'; did you mean 'qwen3-8b'"),
        ("qwen:3", "unknown model of the fleet 'qwen'.*write it like NAME=llama-3-8b"),
        ("llama-3-8b:70,GPT-4=qwen3-8b", "has both names and shares"),
        ("llama-3-8b:many", "the share is 'many'; it must be a number above 0"),
        ("llama-3-8b:0", "the share is '0'"),
        ("llama-3-8b:inf", "the share is 'inf'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_models(text, SERVED)


def test_people_are_told_of_models_that_nobody_asked_for_or_serves() -> None:
    every = [record("a"), record("b", "GPT-4"), record("c", "GPT-4"), record("d", "qwen3-8b")]
    assert list(notes(every, Models(), SERVED)) == [
        "1 requests name no model, and all of them ask for llama-3-8b; to share them, say "
        "--models llama-3-8b:50,qwen3-8b:50",
        "requests for models that the fleet does not serve are refused (GPT-4: 2); say "
        "--models GPT-4=llama-3-8b",
    ]
    assert list(notes(every, Models(), ("llama-3-8b",))) == [
        "requests for models that the fleet does not serve are refused (GPT-4: 2, qwen3-8b: 1); say "
        "--models GPT-4=llama-3-8b,qwen3-8b=llama-3-8b"
    ]
    assert list(notes(every, parse_models("llama-3-8b", SERVED), SERVED)) == []
