"""Adapters that an engine lists are models like others, and keep what says that they are adapters."""

from __future__ import annotations

import msgspec

from millrace.testing.engine import FakeEngine
from tests.integration.gateway.test_sdk import MESSAGES, client_of
from tests.integration.gateway.world import ask, gateway_for, get, run, until

BASE = {"id": "base", "object": "model", "owned_by": "vllm", "root": "/models/base", "max_model_len": 4096}
ADAPTER = {
    "id": "sql-lora",
    "object": "model",
    "owned_by": "vllm",
    "root": "/adapters/sql",
    "parent": "base",
    "max_model_len": None,
}


def page(*cards: object) -> bytes:
    """What vLLM answers to `GET /v1/models`."""
    body = msgspec.json.encode({"object": "list", "data": cards})
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def test_adapters_are_routed_to_the_engine_that_has_them_and_listed_as_they_are() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as plain, FakeEngine("b") as adapted:
            plain.pages["/v1/models"], adapted.pages["/v1/models"] = page(BASE), page(BASE, ADAPTER)
            async with gateway_for(plain, adapted, aliases={"sql": "sql-lora"}) as gateway:
                async with client_of(gateway) as client:
                    for name in ("sql-lora", "sql", "sql-lora"):
                        assert (await client.chat.completions.create(model=name, messages=MESSAGES)).choices
                assert [heard.json["model"] for heard in adapted.heard] == ["sql-lora"] * 3
                assert not plain.heard
                assert (await ask(gateway, get("/v1/models/sql-lora"))).json == ADAPTER | {
                    "created": 0,
                    "max_model_len": 4096,
                }
                alias = (await ask(gateway, get("/v1/models/sql"))).json
                assert (alias["root"], alias["parent"]) == ("sql-lora", "base")

    run(scenario())


def test_a_parent_that_is_no_name_or_not_listed_is_passed_on_as_it_is() -> None:
    odd, orphan = ADAPTER | {"parent": ["base"]}, ADAPTER | {"id": "orphan", "parent": "elsewhere"}

    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            engine.pages["/v1/models"] = page(odd, orphan)
            async with gateway_for(engine) as gateway:
                listed = (await ask(gateway, get("/v1/models"))).json["data"]
                assert listed == [odd | {"created": 0}, orphan | {"created": 0}]

    run(scenario())


def test_an_adapter_that_is_loaded_later_becomes_known() -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            engine.pages["/v1/models"] = page(BASE)
            async with gateway_for(engine, scrape_s=0.005) as gateway:
                engine.pages["/v1/models"] = page(BASE, ADAPTER)
                await until(lambda: "sql-lora" in gateway.fleet.catalogue, "the adapter is listed")
                async with client_of(gateway) as client:
                    assert (await client.chat.completions.create(model="sql-lora", messages=MESSAGES)).choices

    run(scenario())
