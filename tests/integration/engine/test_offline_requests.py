"""Offline requests of a real engine give way to online ones, and are answered all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration.engine.process import MODEL, serving

ASKED: dict[str, Any] = {"model": MODEL, "prompt": "On and on", "temperature": 0}
MANY, TOKENS = 20, 100


def test_an_online_request_takes_the_only_seat_from_an_offline_one(model: Path) -> None:
    offline = {"ignore_eos": True, "priority": -1}
    with serving(model, "--batching", "colocated", "--max-num-seqs", "1") as engine:
        ask = engine.client.completions.create
        stream = ask(**ASKED, n=MANY, max_tokens=TOKENS, stream=True, extra_body=offline)
        next(stream)
        online = ask(**ASKED, max_tokens=4, extra_body={"ignore_eos": True}).choices[0].text
        assert engine.metric("num_preemptions_total") == 1
        texts = [""] * MANY
        for part in stream:
            texts[part.choices[0].index] += part.choices[0].text
        alone = ask(**ASKED, max_tokens=TOKENS, extra_body=offline).choices[0].text
    assert alone.startswith(online)
    assert texts[1:] == [alone] * (MANY - 1)
