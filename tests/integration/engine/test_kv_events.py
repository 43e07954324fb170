"""An engine process says what is in its prefix cache, and says it again to who missed it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from millrace.core.event import BlocksRemoved, BlocksStored, CacheChange
from millrace.gateway.kv_events.decoding import Decoder
from tests.integration.engine.process import Engine, command, serving

END = b"\xff" * 8
PATIENCE_MS = 20_000


@contextmanager
def _asking(address: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvtimeo = PATIENCE_MS
        dealer.connect(address)
        yield dealer


def _told(dealer: zmq.Socket[bytes], first: int) -> list[tuple[int, bytes]]:
    dealer.send_multipart([b"", first.to_bytes(8, "big")])
    told = []
    while (frames := dealer.recv_multipart())[1] != END:
        told.append((int.from_bytes(frames[1], "big"), frames[2]))
    return told


def _changes(told: list[tuple[int, bytes]]) -> list[CacheChange]:
    decoder = Decoder(4)
    return [change for _, payload in told for change in decoder.read(payload)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Addresses that no other process uses."""
    folder = tmp_path_factory.mktemp("kv")
    return f"ipc://{folder}/events", f"ipc://{folder}/replay"


@pytest.fixture(scope="module")
def speaker(model: Path, published: tuple[str, str]) -> Iterator[Engine]:
    """An engine that publishes."""
    with serving(model, "--kv-events", published[0], "--kv-replay", published[1]) as started:
        yield started


def _complete(engine: Engine, tokens: list[int]) -> None:
    body: dict[str, Any] = {"model": "tiny", "prompt": tokens, "max_tokens": 1}
    assert "choices" in engine.post("/v1/completions", body)


def test_what_was_said_is_said_again_from_a_number_on(speaker: Engine, published: tuple[str, str]) -> None:
    with _asking(published[1]) as dealer:
        for first in (1, 11, 21):
            _complete(speaker, list(range(first, first + 8)))
        told = _told(dealer, 0)
        numbers = [number for number, _ in told]
        assert numbers == list(range(len(told)))
        stored = [change for change in _changes(told) if isinstance(change, BlocksStored)]
        assert sum(len(change.keys) for change in stored) == 6
        assert _told(dealer, 1) == told[1:]
        assert _told(dealer, len(told)) == []


def test_who_asks_in_other_words_is_not_answered_and_does_no_harm(
    speaker: Engine, published: tuple[str, str]
) -> None:
    _complete(speaker, list(range(30, 38)))
    with _asking(published[1]) as dealer:
        for frames in ([b"hello"], [b"", b"short"], [b"", bytes(8), b"more"]):
            dealer.send_multipart(frames)
        assert _told(dealer, 0)


def test_what_is_forgotten_is_said(speaker: Engine, published: tuple[str, str]) -> None:
    with _asking(published[1]) as dealer:
        said = len(_told(dealer, 0))
        for first in range(10):  # of 25 blocks each, in a cache of 64
            _complete(speaker, [first] * 100)
        changes = _changes(_told(dealer, said))
        assert any(isinstance(change, BlocksRemoved) for change in changes)
        stored = sum(len(c.keys) for c in _changes(_told(dealer, 0)) if isinstance(c, BlocksStored))
        removed = sum(len(c.keys) for c in _changes(_told(dealer, 0)) if isinstance(c, BlocksRemoved))
        assert 0 < stored - removed <= 64


def test_new_words_come_to_who_subscribes(speaker: Engine, published: tuple[str, str]) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as subscription:
        subscription.rcvtimeo = 200
        subscription.subscribe(b"")
        subscription.connect(published[0])
        for first in range(100):  # a subscription takes a moment to arrive
            _complete(speaker, [40, first % 60, 41, 42])
            try:
                topic, number, payload = subscription.recv_multipart()
            except zmq.Again:
                continue
            assert (topic, len(number)) == (b"", 8)
            assert msgspec.msgpack.decode(payload)[2] == 0
            return
        raise AssertionError("nothing was heard")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kv-events", "tcp://nowhere"), "cannot publish KV events on tcp://nowhere"),
        (("--kv-replay", "tcp://127.0.0.1:1"), "--kv-replay tells again what --kv-events said"),
    ],
)
def test_who_cannot_publish_does_not_start(model: Path, options: tuple[str, ...], said: str) -> None:
    ended = subprocess.run(
        command(model, *options), stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert said in ended.stderr
