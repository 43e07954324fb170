"""Prompts are computed on one engine and answered by another, behind the gateway."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from millrace.control import Controller
from millrace.core.replica import ReplicaSpec
from millrace.gateway.app import Gateway
from millrace.gateway.handing import handed, prompt_only
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.disaggregated import Policy as Disaggregated
from millrace.policies.routing.round_robin import Policy as RoundRobin
from millrace.testing.engine import FakeEngine
from millrace.testing.script import Script
from tests.integration.engine.pair import MORE
from tests.integration.engine.process import MODEL, Engine, eventually, save_model, serving
from tests.integration.gateway.shifting import Queued, Restless
from tests.integration.gateway.world import Answer, ask, chat, gateway_for, post, until

PATIENCE_S = 60.0
Roles = dict[str, Engine]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roles]:
    """Two engines, one of which says that it only computes prompts."""
    model = save_model(tmp_path_factory.mktemp("split") / "tiny")
    with serving(model, *MORE, "--role", "prefill") as p, serving(model, *MORE, "--role", "decode") as d:
        yield {"p": p, "d": d}


def scene(play: Any) -> None:
    uvloop.run(asyncio.wait_for(play, PATIENCE_S))


def backends(engines: Roles) -> tuple[str, ...]:
    return tuple(f"{name}={engine.url}" for name, engine in engines.items())


def mind() -> Controller:
    return Controller(Disaggregated(local_below_tokens=0), Fcfs())


def asked(number: int, **fields: Any) -> bytes:
    fixed = {"model": MODEL, "prompt": f"{number} prompts of some length", "max_tokens": 24, "temperature": 0}
    return post(json.dumps(fixed | {"ignore_eos": True} | fields).encode(), path="/v1/completions")


def text_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    events = answer.events[:-1] if answer.events else [answer.json]
    return "".join(choice["text"] for event in events for choice in event["choices"])


async def answers(gateway: Gateway, **fields: Any) -> list[str]:
    return [
        text_of(one) for one in await asyncio.gather(*(ask(gateway, asked(n, **fields)) for n in range(6)))
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_pair_answers_what_one_engine_would(engines: Roles, stream: bool) -> None:
    async def play() -> None:
        async with gateway_for(mind=mind(), backends=backends(engines)) as gateway:
            computed = engines["p"].metric("prompt_tokens_total")
            roles = [member.spec.role for member in gateway.fleet.members.values()]
            assert roles == ["prefill", "decode"]
            split = await answers(gateway, stream=stream)
        assert engines["p"].metric("prompt_tokens_total") > computed
        alone = Controller(RoundRobin(), Fcfs())
        specs = {"d": ReplicaSpec(models=())}
        async with gateway_for(mind=alone, backends=backends({"d": engines["d"]}), specs=specs) as gateway:
            assert await answers(gateway, stream=stream) == split

    scene(play())
    assert eventually(lambda: all(one.metric("kv_cache_usage_perc") == 0 for one in engines.values()))


def test_what_an_engine_refuses_to_compute_is_refused_to_the_client(engines: Roles) -> None:
    async def play() -> None:
        async with gateway_for(mind=mind(), backends=backends(engines)) as gateway:
            answer = await ask(gateway, asked(0, temperature=-1))
            assert answer.status == 400
            assert answer.json["error"]["param"] == "temperature"

    scene(play())


def test_an_engine_that_keeps_no_cache_is_an_attempt_that_failed() -> None:
    async def play() -> None:
        specs = {"p": ReplicaSpec(models=(), role="prefill"), "d": ReplicaSpec(models=(), role="decode")}
        async with (
            FakeEngine("p") as p,
            FakeEngine("d") as d,
            gateway_for(p, d, mind=mind(), specs=specs) as gateway,
        ):
            answer = await ask(gateway, chat())
            assert answer.status == 502
            assert "kept no KV cache" in answer.json["error"]["message"]
            assert gateway.metrics.retries == Counter(no_kv_cache=2)

    scene(play())


def test_an_engine_that_dies_computing_a_prompt_fails_the_attempt_and_the_rest_is_told(
    tmp_path: Path,
) -> None:
    async def play(p: Engine, d: Engine) -> None:
        async with gateway_for(mind=mind(), backends=backends({"p": p, "d": d})) as gateway:
            p.process.send_signal(signal.SIGSTOP)
            waiting = asyncio.create_task(ask(gateway, asked(1)))
            await until(lambda: gateway.exchanges, "the request came")
            await until(lambda: next(iter(gateway.exchanges.values())).connection, "it was sent")
            p.process.kill()
            assert text_of(await waiting)

    model = save_model(tmp_path / "tiny")
    with serving(model, *MORE, "--role", "prefill") as p, serving(model, *MORE) as d:
        scene(play(p, d))


def test_vllm_is_told_what_its_own_proxy_tells_it() -> None:
    told = {"do_remote_prefill": True, "remote_engine_id": "e", "remote_block_ids": [[7, 8]], "tp_size": 1}
    whole = json.dumps({"choices": [], "kv_transfer_params": told}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(whole)

    async def play() -> None:
        specs = {"p": ReplicaSpec(models=(), role="prefill"), "d": ReplicaSpec(models=(), role="decode")}
        async with (
            FakeEngine("p", script=Script(raw=head + whole)) as p,
            FakeEngine("d") as d,
            gateway_for(p, d, mind=mind(), specs=specs) as gateway,
        ):
            answer = await ask(
                gateway, chat("x-request-id: one", stream=True, max_tokens=3, kv_transfer_params={"mine": 1})
            )
            assert answer.events[-1] == "[DONE]"
        (first,), (then,) = p.heard, d.heard
        assert first.headers["x-request-id"] == then.headers["x-request-id"] == "one"
        assert first.json["kv_transfer_params"]["do_remote_decode"] is True
        assert (first.json["stream"], first.json["max_tokens"]) == (False, 1)
        assert then.json["kv_transfer_params"] == told
        assert (then.json["stream"], then.json["max_tokens"]) == (True, 3)

    scene(play())


def test_a_request_in_a_queue_is_taken_to_another_engine() -> None:
    async def play() -> None:
        policy = Controller(RoundRobin(), Fcfs(), migration=Queued("a", "b"))
        async with (
            FakeEngine("a", script=Script(ttft_s=PATIENCE_S)) as a,
            FakeEngine("b") as b,
            gateway_for(a, b, mind=policy) as gateway,
        ):
            both = await asyncio.gather(*(ask(gateway, chat(stream=True)) for _ in range(2)))
            assert {answer.fields["x-millrace-replica"] for answer in both} == {"b"}
            assert all(answer.events[-1] == "[DONE]" for answer in both)
            assert (len(a.heard), len(b.heard)) == (1, 2)
            await until(lambda: a.aborted == 1, "the first engine was told to stop")

    scene(play())


def test_a_stream_that_no_engine_can_take_over_stays() -> None:
    async def play() -> None:
        policy = Controller(RoundRobin(), Fcfs(), migration=Restless())
        async with (
            FakeEngine("a", script=Script(tokens=20, tpot_s=0.01)) as a,
            FakeEngine("b") as b,
            gateway_for(a, b, mind=policy) as gateway,
        ):
            answer = await ask(gateway, chat(stream=True))
            assert answer.events[-1] == "[DONE]"
            assert gateway.metrics.moves == Counter(unable=1)

    scene(play())


def test_only_a_prompt_is_asked_for() -> None:
    body = json.dumps(
        {"prompt": "x", "stream": True, "stream_options": {}, "max_tokens": 9, "min_tokens": 3, "top_k": 2}
    )
    assert prompt_only(b"{}", "embedding") is None
    told = json.loads(prompt_only(body.encode(), "text") or b"")
    assert told.pop("kv_transfer_params")["do_remote_decode"] is True
    assert told == {"prompt": "x", "stream": False, "max_tokens": 1, "top_k": 2}
    assert json.loads(prompt_only(b'{"messages": []}', "chat") or b"")["max_completion_tokens"] == 1


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"kv_transfer_params": null}', b'{"a": "\xff"}'])
def test_what_says_nothing_of_a_cache_hands_nothing_over(answer: bytes) -> None:
    assert handed(answer) is None


def test_what_an_engine_says_of_its_cache_is_passed_on_as_it_is() -> None:
    told = {"remote_block_ids": [[1, 2]], "remote_engine_id": "e", "tp_size": 2, "new": {"field": 1}}
    field = handed(json.dumps({"choices": [], "kv_transfer_params": told}).encode())
    assert field is not None
    assert json.loads(b"{%b}" % field)["kv_transfer_params"] == told
