"""What vLLM really said of its prefix cache is understood, down to what it found there later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from millrace.control.cached import CachedPrefixes
from millrace.control.clock import Clock
from millrace.core.blocks import chain_contents, contents_of
from millrace.gateway.kv_events.decoding import Decoder
from millrace.gateway.kv_events.story import END
from millrace.testing import fakes

Frames = list[bytes]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    path = Path(__file__).parents[2] / "data" / "kv_events" / "vllm.json"
    sample: dict[str, Any] = json.loads(path.read_text())
    return sample


def _frames(said: list[list[str]]) -> list[Frames]:
    return [[bytes.fromhex(frame) for frame in frames] for frames in said]


def test_batches_are_numbered_from_0_behind_their_topic(recorded: dict[str, Any]) -> None:
    published = _frames(recorded["published"])
    assert [topic for topic, _, _ in published] == [b"kv@demo"] * len(published)
    assert [int.from_bytes(number, "big") for _, number, _ in published] == list(range(len(published)))


def test_what_is_told_again_are_the_same_batches_with_a_mark_behind_the_last(
    recorded: dict[str, Any],
) -> None:
    *replayed, last = _frames(recorded["replayed"])
    assert [frames[-2:] for frames in replayed] == [frames[1:] for frames in _frames(recorded["published"])]
    assert last[-2] == END


def test_whenever_it_was_asked_it_found_what_it_had_said_that_it_held(recorded: dict[str, Any]) -> None:
    size, heard = recorded["block_tokens"], 0
    decoder, index = Decoder(size), CachedPrefixes(1 << 20, clock=Clock())
    batches = [payload for _, _, payload in _frames(recorded["published"])]
    for asked in recorded["asked"]:
        for payload in batches[heard : asked["batches"]]:
            index.note(decoder.read(payload))
        heard, tokens = asked["batches"], asked["prompt"]
        blocks = chain_contents(contents_of(tokens, size))
        prompt = fakes.request(blocks=blocks, block_tokens=size, prompt_tokens=len(tokens))
        # The last token is always computed, so the block that it is in is never counted.
        assert asked["cached"] == min(index.matched_tokens(prompt), (len(tokens) - 1) // size * size)
    assert not decoder.ignored
    cached = [asked["cached"] for asked in recorded["asked"]]
    assert max(cached) > 0
    assert cached[-1] < cached[2], "the prompt that came first was forgotten, at least in part"
