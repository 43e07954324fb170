"""What the gateway answers itself, and every error a client can cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from millrace import __version__
from millrace.core.prompt import PROMPT_FIELD
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.gateway.world import (
    ask,
    caller,
    chat,
    controller,
    gateway_for,
    get,
    one_engine,
    post,
    run,
    until,
)

ALIVE = ("/health", "/healthz", "/livez", "/liveness", "/health/liveness", "/health/liveliness", "/ping")
READY = ("/readyz", "/ready", "/readiness", "/health/readiness")


def test_liveness_is_the_gateways_own_and_readiness_the_fleets() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            for path in (*ALIVE, *READY):
                assert (await one.ask(get(path))).status == 200
            await engine.stop()
            await until(lambda: not gateway.fleet.ready, "the engine is known to be down")
            for path in ALIVE:
                answer = await one.ask(get(path))
                assert (answer.status, answer.body) == (200, b"")
            for path in READY:
                answer = await one.ask(get(path))
                assert answer.status == 503
                assert answer.json["reasons"] == ["no replica is ready"]

    run(scenario())


def test_counting_tokens_is_an_engines_affair_and_makes_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_engine(event_log=tmp_path / "log") as (engine, gateway):
            path = "/v1/messages/count_tokens"
            asked = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
            counted = b'{"input_tokens":9}'
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            engine.script = Script(raw=head % len(counted) + counted)
            answer = await ask(gateway, post(asked, path=path))
            assert (answer.status, answer.body) == (200, counted)
            assert [(heard.path, heard.body) for heard in engine.heard] == [(path, asked)]
            refused = await ask(gateway, post(b'{"model":"m"}', path=path))
            assert (refused.status, refused.json["type"]) == (400, "error")

    run(scenario())
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()[1:]]
    (arrived,) = (line["event"] for line in lines if line["event"]["type"] == "Arrived")
    assert arrived["request"]["max_tokens"] == 0


def test_models_are_those_of_the_engines_and_names_may_hold_slashes() -> None:
    async def scenario() -> None:
        engines = FakeEngine("a", models=("org/m", "m")), FakeEngine("b", models=("m", "n"))
        async with engines[0] as first, engines[1] as second, gateway_for(first, second) as gateway:
            async with caller(gateway) as one:
                listed = (await one.ask(get("/v1/models"))).json
                assert listed["object"] == "list"
                assert {card["id"] for card in listed["data"]} == {"org/m", "m", "n"}
                card = (await one.ask(get("/v1/models/org/m"))).json
                assert (card["id"], card["owned_by"], card["max_model_len"]) == ("org/m", "a", 8192)
                assert (await one.ask(get("/v1/models/org%2Fm"))).json == card
                missing = await one.ask(get("/v1/models/none"))
                assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")
            for _ in range(3):
                answer = await ask(gateway, chat(model="n"))
                assert answer.fields["x-engine"] == "b"

    run(scenario())


def test_head_and_options_are_answered_without_a_body() -> None:
    async def scenario() -> None:
        async with one_engine() as (_, gateway), caller(gateway) as one:
            length = len((await one.ask(get("/v1/models"))).body)
            answer = await one.ask(get("/v1/models", "HEAD"), head_only=True)
            assert (answer.status, answer.fields["content-length"]) == (200, str(length))
            assert (await one.ask(get("/nothing", "HEAD"), head_only=True)).status == 404
            options = await one.ask(get("/v1/chat/completions", "OPTIONS"))
            assert (options.status, options.fields["allow"]) == (204, "POST, OPTIONS")
            assert (await one.ask(get("*", "OPTIONS"))).status == 204
            assert (await one.ask(get("/version"))).json == {"version": __version__}
            assert (await one.ask(get("http://host/version"))).status == 200

    run(scenario())


@pytest.mark.parametrize(
    ("raw", "status", "code", "param"),
    [
        (get("/"), 404, "not_found", None),
        (get("/v1/chat/completions/"), 404, "not_found", None),
        (post(b"{}", path="/v1/images"), 404, "not_found", None),
        (get("/v1/chat/completions"), 405, "method_not_allowed", None),
        (get("/v1/models", "DELETE"), 405, "method_not_allowed", None),
        (post(b"{}", path="/metrics"), 405, "method_not_allowed", None),
        (post(b"{"), 400, None, None),
        (post(b"[]"), 400, None, None),
        (post(b"{}"), 400, None, "model"),
        (chat(max_tokens="many"), 400, None, "max_tokens"),
        (chat(stream=1), 400, None, "stream"),
        (chat(messages="hi"), 400, None, "messages"),
        (chat("x-slo-ttft-ms: soon"), 400, None, "x-slo-ttft-ms"),
        (chat(model="none"), 404, "model_not_found", "model"),
    ],
)
def test_every_error_is_json_and_leaves_the_connection_usable(
    raw: bytes, status: int, code: str | None, param: str | None
) -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            answer = await one.ask(raw)
            error = answer.json["error"]
            assert (answer.status, error["code"], error["param"]) == (status, code, param)
            assert error["message"]
            assert error["type"]
            assert answer.fields["x-request-id"].startswith("req_")
            assert not engine.heard
            assert (await one.ask(chat())).status == 200

    run(scenario())


def test_anthropics_clients_get_errors_in_their_own_shape() -> None:
    async def scenario() -> None:
        async with one_engine(mind=controller(max_hold_s=0.05)) as (engine, gateway):
            bad = await ask(gateway, post(b"{}", path="/v1/messages"))
            assert (bad.status, bad.json["type"]) == (400, "error")
            assert bad.json["error"]["type"] == "invalid_request_error"
            await engine.stop()
            await until(lambda: not gateway.fleet.ready, "the engine is known to be down")
            busy = await ask(gateway, post(b'{"model":"m","messages":[]}', path="/v1/messages"))
            assert (busy.status, busy.json["error"]["type"]) == (529, "overloaded_error")

    run(scenario())


@pytest.mark.parametrize("kind", sorted(PROMPT_FIELD))
def test_every_dialect_has_its_route(kind: Any) -> None:
    paths = {"chat": "chat/completions", "text": "completions", "embedding": "embeddings"}
    body = {"model": "m", PROMPT_FIELD[kind]: ["x"]}

    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            path = f"/v1/{paths.get(kind, kind)}"
            assert (await ask(gateway, post(json.dumps(body).encode(), path=path))).status == 200
            assert engine.heard[0].path == path

    run(scenario())


def test_a_clients_id_is_used_and_an_insane_one_replaced() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            for line, kept in (("x-request-id: mine-1", True), ("x-request-id: " + "x" * 200, False)):
                answer = await one.ask(chat(line))
                assert (answer.fields["x-request-id"] in line) is kept
                assert engine.heard[-1].headers["x-request-id"] == answer.fields["x-request-id"]

    run(scenario())


def test_the_metrics_page_says_what_happened() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway), caller(gateway) as one:
            engine.script = Script(tokens=4, cached_tokens=2)
            for stream in (False, True):
                await one.ask(chat("x-stainless-retry-count: 1", stream=stream))
            await one.ask(post(b"{"))
            page = (await one.ask(get("/metrics"))).body.decode()
            samples = {
                (sample.name.removeprefix("millrace_"), *sorted(sample.labels.values())): sample.value
                for family in text_string_to_metric_families(page)
                for sample in family.samples
                if not sample.name.endswith("_bucket")
            }
            assert samples["request_total", "a", "m", "ok"] == 2
            assert samples["request_ttft_seconds_count", "a", "m"] == 1
            assert samples["request_itl_seconds_count", "a", "m"] >= 1
            assert samples["request_tpot_seconds_count", "a", "m"] == 1
            assert samples["request_output_tokens_sum", "a", "m"] == 8
            assert samples["request_cached_tokens_sum", "a", "m"] == 4
            assert samples["request_error_total", "400", "unknown"] == 1
            assert samples["client_retry_total",] == 2
            assert samples["gateway_overhead_seconds_count",] == 2
            assert samples["pool_ready_replicas",] == 1
            assert samples["request_running", "a"] == 0
            assert samples["scrape_age_seconds", "a"] < 10
            assert samples["client_connections",] == 1
            assert ("stream_aborted_total", "client") not in samples

    run(scenario())


def test_a_client_that_leaves_while_its_page_is_written_harms_nobody() -> None:
    async def scenario() -> None:
        async with one_engine() as (_, gateway):
            async with caller(gateway) as one:
                await one.say(get("/metrics"))
                one.reset()
            await until(lambda: not gateway.clients, "the client is gone")
            assert (await ask(gateway, get("/metrics"))).status == 200

    run(scenario())
