"""Engines that can do both change their roles with the load, and answers stay what one engine would say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvloop

from millrace.control import Controller
from millrace.core.replica import ReplicaSpec
from millrace.gateway.app import Gateway
from millrace.policies.queueing.fcfs import Policy as Fcfs
from millrace.policies.routing.round_robin import Policy as RoundRobin
from millrace.policies.routing.xllm_slo_aware import Policy as Roles
from tests.integration.engine.pair import MORE
from tests.integration.engine.process import MODEL, Engine, save_model, serving
from tests.integration.gateway.world import Answer, ask, gateway_for, post

PATIENCE_S = 60.0
# A step takes 50 ms for one request and 10 ms more for each other one: 55 ms are kept for one only.
SPEC = ReplicaSpec(
    models=(), prefill_tokens_per_s=1e4, decode_step_s=0.36, decode_sequence_s=0.01, decode_context_s=0.0
)
Fleet = dict[str, Engine]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three engines that can take KV caches from each other."""
    model = save_model(tmp_path_factory.mktemp("roles") / "tiny")
    with ExitStack() as stack:
        yield {name: stack.enter_context(serving(model, *MORE)) for name in "abc"}


def asked(number: int, *, words: int, answer: int) -> bytes:
    prompt = f"{number} " + "words " * words
    fields = {"model": MODEL, "prompt": prompt, "max_tokens": answer, "temperature": 0, "ignore_eos": True}
    return post(json.dumps(fields | {"stream": True}).encode(), path="/v1/completions")


def text_of(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    assert answer.events[-1] == "[DONE]"
    return "".join(choice["text"] for event in answer.events[:-1] for choice in event["choices"])


PROMPTS = [asked(number, words=12, answer=2) for number in range(3)]  # one after the other
ANSWERS = [asked(number, words=1, answer=90) for number in range(3, 6)]  # all at once


async def in_turn(gateway: Gateway) -> list[Answer]:
    """Ask for much reading and little writing."""
    return [await ask(gateway, one) for one in PROMPTS]


async def at_once(gateway: Gateway) -> list[Answer]:
    """Ask for the opposite."""
    return list(await asyncio.gather(*(ask(gateway, one) for one in ANSWERS)))


def read(engines: Fleet) -> list[float]:
    """Tokens of prompts that each engine has had so far."""
    return [engine.metric("prompt_tokens_total") for engine in engines.values()]


def test_roles_follow_the_load_from_prompts_to_answers_and_back(engines: Fleet) -> None:
    backends = tuple(f"{name}={engine.url}" for name, engine in engines.items())

    async def scenario() -> None:
        alone = Controller(RoundRobin(), Fcfs())
        only_a = {"a": ReplicaSpec(models=())}
        async with gateway_for(mind=alone, backends=backends[:1], specs=only_a) as gateway:
            expected = [text_of(one) for one in [*await in_turn(gateway), *await at_once(gateway)]]
        mind = Controller(Roles(slo_tpot_s=0.055), Fcfs())
        async with gateway_for(mind=mind, backends=backends, specs=dict.fromkeys(engines, SPEC)) as gateway:
            before = sum(read(engines)[1:])
            first = await in_turn(gateway)
            assert sum(read(engines)[1:]) > before, "those who answered nobody computed the prompts"
            then, last = await at_once(gateway), await in_turn(gateway)
        assert [text_of(one) for one in [*first, *then]] == expected
        at = [one.fields["x-millrace-replica"] for one in [*first, *last]]
        assert at == ["a"] * 6
        assert len({one.fields["x-millrace-replica"] for one in then}) > 1, "another one began to decode"

    uvloop.run(asyncio.wait_for(scenario(), PATIENCE_S))
