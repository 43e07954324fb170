"""What `millrace serve` is told of prefix caches is checked before it starts."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from millrace.cli.knowing import control_fields_of, fields_of, require_speakers, tokenizers_of
from millrace.control import ControlSettings
from millrace.data import demo_model
from millrace.gateway import GatewaySettings
from millrace.gateway.kv_events.endpoint import Endpoint

USUAL: dict[str, Any] = {
    "demo": False,
    "prefix_knowledge": "sent",
    "prefix_ttl": None,
    "prefix_index_bytes": 1 << 20,
    "kv_events": None,
    "block_tokens": None,
    "tokenizer": None,
    "tokenize_within": 0.1,
}
BACKENDS = ("a=http://x:1", "b=http://x:2")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("a=tcp://x:1", Endpoint("tcp://x:1")),
        ("a=tcp://x:1,replay=tcp://x:2", Endpoint("tcp://x:1", "tcp://x:2")),
        ("a=ipc:///run/kv,topic=kv@x", Endpoint("ipc:///run/kv", None, "kv@x")),
    ],
)
def test_an_engines_addresses_are_read(text: str, endpoint: Endpoint) -> None:
    assert fields_of(USUAL | {"kv_events": [text]})["kv_events"] == {"a": endpoint}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "tcp://x:1",
        "a=http://x:1",
        "a=tcp://x",
        "a=tcp://x:1,again=tcp://x:2",
        "a=tcp://x:1,replay=2",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="kv_events: cannot read"):
        fields_of(USUAL | {"kv_events": [text]})


def test_events_are_in_blocks_of_tokens() -> None:
    assert fields_of(USUAL)["block_tokens"] is None
    assert fields_of(USUAL | {"prefix_knowledge": "events"})["block_tokens"] == 16
    assert fields_of(USUAL | {"tokenizer": ["folder"]})["block_tokens"] == 16
    assert fields_of(USUAL | {"prefix_knowledge": "events", "block_tokens": 64})["block_tokens"] == 64


def test_what_is_usual_is_not_said() -> None:
    assert control_fields_of(USUAL)["prefix_knowledge"] is UNSET
    assert control_fields_of(USUAL)["prefix_ttl_s"] is UNSET
    unusual = control_fields_of(USUAL | {"prefix_knowledge": "none", "prefix_ttl": 9.0})
    assert (unusual["prefix_knowledge"], unusual["prefix_ttl_s"]) == ("none", 9.0)


def test_the_engines_of_the_demo_publish_nothing() -> None:
    with pytest.raises(ValueError, match="--demo starts engines that publish no KV events"):
        fields_of(USUAL | {"demo": True, "prefix_knowledge": "events"})


def test_tokenizers_are_of_models_or_of_all_others() -> None:
    folder = str(demo_model())
    assert tokenizers_of(None) == {}
    assert tokenizers_of([folder, f"m={folder}/tokenizer.json"]).keys() == {"", "m"}
    with pytest.raises(ValueError, match="--tokenizer: name one for each model"):
        tokenizers_of([f"m={folder}", f"m={folder}"])
    with pytest.raises(ValueError, match=r"nowhere/tokenizer.json: not found"):
        tokenizers_of(["m=nowhere"])


def _settings(*names: str) -> GatewaySettings:
    endpoints = {name: Endpoint("tcp://x:1") for name in names}
    return GatewaySettings(backends=BACKENDS, kv_events=endpoints, block_tokens=16)


def test_who_is_to_be_believed_must_speak() -> None:
    require_speakers(_settings("a", "b"), ControlSettings(prefix_knowledge="events"))
    require_speakers(_settings(), ControlSettings())
    with pytest.raises(ValueError, match="needs --kv-events for every --backend; 'b' has none"):
        require_speakers(_settings("a"), ControlSettings(prefix_knowledge="events"))


def test_who_speaks_must_be_believed() -> None:
    with pytest.raises(ValueError, match="--kv-events are listened to with --prefix-knowledge events"):
        require_speakers(_settings("a"), ControlSettings())


def test_settings_that_make_no_sense_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"kv_events: \['c'\] name no replica"):
        _settings("c")
    with pytest.raises(ValueError, match="block_tokens is None; say how many tokens"):
        GatewaySettings(backends=BACKENDS, kv_events={"a": Endpoint("tcp://x:1")})
    with pytest.raises(ValueError, match="block_tokens is 0; it must be at least 1"):
        GatewaySettings(backends=BACKENDS, block_tokens=0)
    with pytest.raises(ValueError, match="tokenize_within_s is 0; it must be above 0"):
        GatewaySettings(backends=BACKENDS, tokenize_within_s=0)
