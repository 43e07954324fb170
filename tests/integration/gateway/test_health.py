"""What the gateway finds out about its engines."""

from __future__ import annotations

import pytest

from millrace.control import Controller
from millrace.core.replica import ReplicaSpec
from millrace.gateway.app import Gateway
from millrace.testing.engine import FakeEngine
from tests.integration.gateway.world import (
    ask,
    caller,
    chat,
    controller,
    gateway_for,
    get,
    one_engine,
    run,
    until,
)

MISSING = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
LOAD = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\n"


def chunked(body: bytes) -> bytes:
    """A page that comes in chunks."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def seen(mind: Controller, gateway: Gateway) -> tuple[int | None, int | None]:
    """What the controller knows of the first engine's load."""
    report = mind.state.replicas["a"].report
    assert gateway.fleet.members["a"].phase == "ready"
    return (report.running, report.waiting) if report else (None, None)


def test_an_engines_load_reaches_the_controller() -> None:
    async def scenario() -> None:
        mind = controller()
        async with one_engine(mind=mind) as (engine, gateway):
            assert seen(mind, gateway) == (0, 0)
            engine.pages["/metrics"] = chunked(LOAD)
            await until(lambda: seen(mind, gateway) == (3, 2), "the load is reported")

    run(scenario())


def test_an_engine_without_health_and_metrics_pages_serves_and_says_nothing() -> None:
    async def scenario() -> None:
        mind = controller()
        async with FakeEngine("a") as engine:
            engine.pages = {"/health": MISSING, "/metrics": MISSING}
            async with gateway_for(engine, mind=mind) as gateway:
                assert seen(mind, gateway) == (None, None)
                assert (await ask(gateway, chat())).status == 200
                assert b"scrape_age_seconds{" not in (await ask(gateway, get("/metrics"))).body

    run(scenario())


@pytest.mark.parametrize(
    "page",
    [
        MISSING,
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n[",
        b'HTTP/1.1 200 OK\r\ncontent-length: 24\r\n\r\n{"data":[{"object":"m"}]}'[:-1],
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 9_000_000,
    ],
)
def test_an_engine_whose_models_cannot_be_read_is_not_used_until_they_can(page: bytes) -> None:
    async def scenario() -> None:
        async with FakeEngine("a") as engine:
            engine.pages["/v1/models"] = page
            async with gateway_for(engine) as gateway:
                assert gateway.fleet.ready == 0
                assert (await ask(gateway, get("/readyz"))).json["replicas"] == {"a": "starting"}
                del engine.pages["/v1/models"]
                assert (await ask(gateway, chat())).status == 200

    run(scenario())


def test_requests_for_a_model_no_engine_ever_named_are_refused_and_others_wait() -> None:
    async def scenario() -> None:
        async with one_engine(mind=controller(max_hold_s=0.1)) as (engine, gateway), caller(gateway) as one:
            assert (await one.ask(chat(model="none"))).status == 404
            await engine.stop()
            await until(lambda: not gateway.fleet.ready, "the engine is known to be down")
            assert (await one.ask(chat(model="none"))).status == 404
            assert (await one.ask(chat())).status == 503

    run(scenario())


def test_an_engine_that_comes_back_with_another_model_serves_that() -> None:
    async def scenario() -> None:
        async with one_engine() as (engine, gateway):
            await engine.stop()
            await until(lambda: not gateway.fleet.ready, "the engine is known to be down")
            engine.models = ("new",)
            await engine.start()
            await until(lambda: gateway.fleet.ready, "the engine is known to be back")
            assert (await ask(gateway, chat(model="new"))).status == 200
            assert (await ask(gateway, chat(model="m"))).status == 404

    run(scenario())


def test_what_was_bought_is_told_together_with_what_was_learned() -> None:
    async def scenario() -> None:
        mind = controller()
        bought = ReplicaSpec(models=(), prefill_tokens_per_s=1000.0, device="h100")
        async with one_engine(mind=mind, specs={"a": bought}):
            spec = mind.state.replicas["a"].spec
            assert (spec.models, spec.prefill_tokens_per_s, spec.device) == (("m",), 1000.0, "h100")

    run(scenario())
