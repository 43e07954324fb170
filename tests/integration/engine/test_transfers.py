"""KV caches move between two engine processes, and answers are what they would have been at one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engine.pair import Stream, kv_address, move, pair, texts
from tests.integration.engine.process import MODEL, Engine, eventually

TEXT: dict[str, Any] = {"prompt": "The mill race", "max_tokens": 90, "ignore_eos": True}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Which way?"}],
    "max_tokens": 90,
    "ignore_eos": True,
}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "drawn": {"temperature": 1.5, "seed": 7},
    "nucleus": {"temperature": 1.5, "seed": 8, "top_p": 0.9},
    "penalised": {"temperature": 0, "presence_penalty": 1.5, "frequency_penalty": 0.5},
    "told": {"temperature": 0, "return_token_ids": True, "stream_options": {"include_usage": True}},
}


@pytest.fixture(scope="module")
def engines(model: Path) -> Iterator[tuple[Engine, Engine]]:
    with pair(model) as both:
        yield both


def idle(engine: Engine) -> bool:
    """Whether nothing runs, waits or holds blocks."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    return all(engine.metric(name) == 0 for name in names)


def parts(engines: tuple[Engine, Engine], path: str, body: dict[str, Any], after: int) -> list[str]:
    """The events of an answer that moves after so many of them."""
    source, target = engines
    begun = Stream(source, path, body)
    first = list(islice(begun.data(), after))
    moved = Stream(target, path, body | move(source, "r"))
    assert moved.status == 200, moved.body()
    rest = begun.rest()
    assert "[DONE]" not in first + rest, "it had ended before it could move"
    return first + rest + moved.rest()


def same(events: list[str], others: list[str]) -> None:
    """Check that two streams say the same, but for their own ids."""

    def told(event: str) -> Any:
        return event if event == "[DONE]" else json.loads(event) | {"id": "", "created": 0}

    assert [told(event) for event in events] == [told(event) for event in others]
    assert len({json.loads(event)["id"] for event in events if event != "[DONE]"}) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("path", "body"), [("/v1/completions", TEXT), ("/v1/chat/completions", CHAT)])
def test_an_answer_that_moves_while_it_runs_is_the_same(
    engines: tuple[Engine, Engine], path: str, body: dict[str, Any], way: str
) -> None:
    alone = Stream(engines[0], path, body | WAYS[way]).rest()
    same(parts(engines, path, body | WAYS[way], after=12), alone)
    assert eventually(lambda: all(idle(engine) for engine in engines))


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_computed_elsewhere_brings_the_same_answer(
    engines: tuple[Engine, Engine], stream: bool
) -> None:
    prefill, decode = engines
    body = {"model": MODEL, "prompt": "A prompt of some length, " * 2, "temperature": 0, "ignore_eos": True}
    alone = prefill.post("/v1/completions", body | {"max_tokens": 20})["choices"][0]["text"]
    asked = {"kv_transfer_params": {"do_remote_decode": True}, "max_tokens": 1}
    params = prefill.post("/v1/completions", body | asked)["kv_transfer_params"]
    assert params["do_remote_prefill"]
    assert len(params["remote_block_ids"]) >= 10
    assert not idle(prefill), "it keeps the blocks"
    whole = body | {"max_tokens": 20, "kv_transfer_params": params}
    if stream:
        assert texts(Stream(decode, "/v1/completions", whole).rest()) == alone
    else:
        assert decode.post("/v1/completions", whole)["choices"][0]["text"] == alone
    assert eventually(lambda: all(idle(engine) for engine in engines))


def test_what_is_not_there_is_refused_and_may_be_tried_elsewhere(engines: tuple[Engine, Engine]) -> None:
    source, target = engines
    params = {"do_remote_prefill": True, "remote_request_id": "gone"} | kv_address(source)
    refused = target.post("/v1/completions", TEXT | {"model": MODEL, "kv_transfer_params": params})
    assert refused["status"] == 503
    assert "there is no request 'gone'" in refused["error"]["message"]
