"""Where SGLang's engines meet is read, and what they are told is bounded."""

from __future__ import annotations

import json

import pytest

from millrace.gateway.handing import Bootstrap, meeting_at, refused
from millrace.gateway.settings import GatewaySettings

HERE = Bootstrap("h", None)


@pytest.mark.parametrize(
    ("text", "found"),
    [("p=10.0.0.1:8998", Bootstrap("10.0.0.1", 8998)), ("p=[::1]:1", Bootstrap("[::1]", 1))],
)
def test_an_address_is_read(text: str, found: Bootstrap) -> None:
    assert Bootstrap.parse(text) == ("p", found)


@pytest.mark.parametrize(
    "text", ["", "p", "p=", "=h:1", "p=h", "p=h:", "p=h:0", "p=h:70000", "p=http://h:1", "p=::1:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="bootstraps: cannot read"):
        Bootstrap.parse(text)


def test_only_backends_can_be_met() -> None:
    with pytest.raises(ValueError, match=r"bootstraps: \['q'\] name no replica"):
        GatewaySettings(backends=("p=http://h:1",), bootstraps={"q": HERE})


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"n": 1000000000}', b'{"n": true}', b'{"n": "x"}', b'{"prompt": []}', b'{"prompt": [true]}'],
)
def test_what_is_nothing_much_or_too_much_has_one_room(body: bytes) -> None:
    for kind in ("chat", "text"):
        told = json.loads(b"{%b}" % meeting_at(HERE, body, kind))
        assert 0 <= told.pop("bootstrap_room") < 1 << 63
        assert told == {"bootstrap_host": "h", "bootstrap_port": None}


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b": a comment",
        b"data: [DONE]",
        b"data: {",
        b'data: {"choices": []}',
        b'data: {"error": {"code": 400}}',
    ],
)
def test_nothing_is_refused_in_what_says_so_little(event: bytes) -> None:
    assert refused(event + b"\n\n") == b""
