"""Settings that can work are taken; others are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.replica import ReplicaSpec
from millrace.gateway.settings import Backend, GatewaySettings

URL = "http://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("text", "backend", "authority"),
    [
        (URL, Backend("127.0.0.1:8001", "127.0.0.1", 8001, ""), "127.0.0.1:8001"),
        ("http://host/", Backend("host:80", "host", 80, ""), "host:80"),
        ("http://host:1/a/v1/", Backend("host:1/a", "host", 1, "/a"), "host:1"),
        ("http://[::1]:5", Backend("[::1]:5", "::1", 5, ""), "[::1]:5"),
        ("gpu-1=http://host:1/v1", Backend("gpu-1", "host", 1, ""), "host:1"),
    ],
)
def test_a_backend_is_read_from_its_url(text: str, backend: Backend, authority: str) -> None:
    assert Backend.parse(text) == backend
    assert backend.authority == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host:1",
        "https://host",
        "http://",
        "http://u:p@host",
        "http://host:x",
        "http://host:99999",
        "a b=http://h",
        "http://host/?q=1",
        "http://host/#f",
        "http://ho st",
        "http://höst",
        "=http://host\n",
    ],
)
def test_what_is_no_backend_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="backends: "):
        Backend.parse(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backends": ()}, "backends: name at least one"),
        ({"backends": (URL, URL + "/")}, "named once"),
        ({"port": 65536}, "port is 65536"),
        ({"admin_port": 65536}, "admin_port is 65536"),
        ({"aliases": {"a": {}}}, "aliases: 'a' must stand for models with weights above 0"),
        ({"aliases": {"a": {"m": 0}}}, "aliases: 'a' must stand for models with weights above 0"),
        ({"aliases": {"a": {"m": float("nan")}}}, "aliases: 'a' must stand for models with weights above 0"),
        ({"aliases": {"a": "b", "b": "m"}}, "aliases: .'b'. stand for models and for other names"),
        ({"fallbacks": {"m": ()}}, "fallbacks: 'm' must fall back on other models"),
        ({"fallbacks": {"m": ("n", "m")}}, "fallbacks: 'm' must fall back on other models"),
        ({"fallbacks": {"m": ("n", "n")}}, "fallbacks: 'm' must fall back on other models"),
        ({"aliases": {"a": "m"}, "fallbacks": {"a": ("n",)}}, "fallbacks: .'a'. are aliases"),
        ({"aliases": {"a": "m"}, "fallbacks": {"m": ("a",)}}, "fallbacks: .'a'. are aliases"),
        ({"drain_s": -1}, "drain_s is -1"),
        ({"scrape_s": 0}, "scrape_s is 0"),
        ({"max_body_bytes": 0}, "max_body_bytes is 0"),
        ({"connect_timeout_s": 0}, "connect_timeout_s is 0"),
        ({"specs": {"http://other": ReplicaSpec(models=())}}, "specs: .* name no replica"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatewaySettings(**({"backends": (URL,)} | fields))


def test_a_spec_may_be_given_by_name_or_by_url() -> None:
    spec = ReplicaSpec(models=(), price_per_h=2.0)
    assert GatewaySettings(backends=(f"a={URL}",), specs={"a": spec}).specs["a"] is spec
    assert GatewaySettings(backends=(URL,), specs={URL: spec}).specs[URL] is spec
