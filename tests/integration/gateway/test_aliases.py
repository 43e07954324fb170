"""Clients may call a model by other names; its engine hears its own."""

from __future__ import annotations

import pytest

from millrace.gateway.settings import GatewaySettings
from millrace.testing.engine import FakeEngine
from tests.integration.gateway.world import ask, chat, gateway_for, get, run

ALIASES = {"gpt-4o-mini": "org/m", "absent": "nowhere"}


def test_an_alias_is_routed_renamed_and_listed() -> None:
    async def scenario() -> None:
        async with (
            FakeEngine("a", models=("org/m",)) as engine,
            gateway_for(engine, aliases=ALIASES) as gateway,
        ):
            answer = await ask(gateway, chat(model="gpt-4o-mini"))
            assert answer.status == 200
            assert [heard.json["model"] for heard in engine.heard] == ["org/m"]
            listed = {card["id"]: card for card in (await ask(gateway, get("/v1/models"))).json["data"]}
            assert listed.keys() == {"org/m", "gpt-4o-mini"}
            assert listed["gpt-4o-mini"]["root"] == "org/m"
            assert listed["gpt-4o-mini"]["max_model_len"] == listed["org/m"]["max_model_len"]
            assert (await ask(gateway, chat(model="absent"))).status == 404
            assert len(engine.heard) == 1

    run(scenario())


def test_an_alias_of_an_alias_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'b'"):
        GatewaySettings(backends=("http://127.0.0.1:1",), aliases={"a": "b", "b": "m"})
