"""Whatever breaks while an answer moves, it goes on in exactly one place, and nothing stays reserved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.engine.answer import Answer
from millrace.engine.errors import ApiError, broken
from millrace.engine.model import Model
from millrace.engine.pulling import Puller
from millrace.engine.weights import load_model
from millrace.engine.wire import TransferError
from millrace.replica.table import Table
from tests.unit.engine.checkpoints import prompt, save_checkpoint
from tests.unit.engine.two_loops import PATIENCE_S, Link, Side, linked, params, tokens_of, until_free

PROMPT, LENGTH = prompt(21), 60


@pytest.fixture(scope="module")
def model() -> Model:
    """A tiny model."""
    folder = Path(mkdtemp()) / "tiny"
    save_checkpoint(folder)
    return load_model(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def expected(model: Model) -> list[int]:
    """What one engine answers."""

    async def alone(source: Side, target: Side, link: Link) -> list[int]:
        answer = source.answer(PROMPT, LENGTH)
        source.loop.submit(answer)
        return await tokens_of(answer)

    return play(model, alone)


Scene = Callable[[Side, Side, Link], Awaitable[list[int]]]


def play(model: Model, scene: Scene, *, target_blocks: int = 64) -> list[int]:
    """Play a scene between two engines, and see that nothing is left of it."""

    async def whole() -> list[int]:
        source, target = Side(model), Side(model, blocks=target_blocks)
        async with linked(source, target) as link:
            told = await scene(source, target, link)
            await until_free(source, target)
        return told

    return asyncio.run(asyncio.wait_for(whole(), PATIENCE_S))


async def begun(source: Side, tokens: int) -> tuple[Answer, list[int]]:
    """An answer under way that has so many tokens, and those."""
    answer = source.answer(PROMPT, LENGTH)
    source.loop.submit(answer)
    source.offer(answer)
    first: list[int] = []
    async for parts in answer.parts():
        first += [token for part in parts for token in part.delta.tokens]
        if len(first) >= tokens:
            break
    return answer, first


async def joined(source: Side, target: Side, answer: Answer, first: list[int]) -> list[int]:
    """What a client reads, who listens to the source until it has parted with the answer."""
    reading = asyncio.create_task(tokens_of(answer))
    try:
        moved, _ = await target.puller.running(params(source), target.remake)
    except ApiError:
        return first + await reading
    first += await reading
    if answer.parted:
        return first + await tokens_of(moved)
    target.loop.abort(moved)  # the source has never heard that it was to let go
    return first


def test_an_answer_goes_on_elsewhere(model: Model, expected: list[int]) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        answer, first = await begun(source, 3)
        told = await joined(source, target, answer, first)
        assert answer.parted
        return told

    assert play(model, scene) == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 16_000), after=st.integers(1, 50))
def test_a_link_that_is_cut_anywhere_loses_and_doubles_nothing(
    model: Model, expected: list[int], cut: int, after: int
) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        link.cut_after_bytes = cut
        return await joined(source, target, *await begun(source, after))

    assert play(model, scene) == expected


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.integers(0, 120), after=st.integers(1, 50), who=st.sampled_from(["source", "target"]))
def test_either_side_may_give_up_at_any_moment(
    model: Model, expected: list[int], turns: int, after: int, who: str
) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        answer, first = await begun(source, after)
        pulling = asyncio.create_task(target.puller.running(params(source), target.remake))
        for _ in range(turns):
            await asyncio.sleep(0)
        if who == "source":
            source.loop.abort(answer)  # its client has left
            first += await tokens_of(answer)
            (moved,) = await asyncio.gather(pulling, return_exceptions=True)
            if not isinstance(moved, BaseException):
                target.loop.abort(moved[0])
            return first
        pulling.cancel()
        (moved,) = await asyncio.gather(pulling, return_exceptions=True)
        first += await tokens_of(answer)
        if not isinstance(moved, BaseException):
            first += await tokens_of(moved[0]) if answer.parted else []
            target.loop.abort(moved[0])
        return first

    told = play(model, scene)
    assert told == (expected if who == "target" else expected[: len(told)])


def test_a_target_without_room_leaves_the_answer_where_it_is(model: Model, expected: list[int]) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        held, pool = Table(), target.loop.replica.batch.pool
        assert pool.grow(held, 10)
        answer, first = await begun(source, 30)
        told = await joined(source, target, answer, first)
        assert not answer.parted
        pool.release(held)
        return told

    assert play(model, scene, target_blocks=21) == expected


def test_a_kept_prompt_is_forgotten_when_nobody_comes_for_it(model: Model) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        kept = source.answer(PROMPT, 1, keeps=True)
        source.loop.submit(kept)
        first = await tokens_of(kept)
        assert not source.free
        await until_free(source)
        with pytest.raises(ApiError, match="there is no request"):
            await target.puller.prompt(params(source, kept.generations[0].id, move=False), kept)
        return first

    assert len(play(model, scene)) == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 6_000))
def test_a_prompt_that_comes_over_a_link_cut_anywhere_comes_whole_or_not_at_all(
    model: Model, expected: list[int], cut: int
) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        kept = source.answer(PROMPT, 1, keeps=True)
        source.loop.submit(kept)
        await tokens_of(kept)
        link.cut_after_bytes = cut
        answer = target.answer(PROMPT, LENGTH)
        pulling = target.puller.prompt(params(source, kept.generations[0].id, move=False), answer)
        (failed,) = await asyncio.gather(pulling, return_exceptions=True)
        if failed is None:
            return await tokens_of(answer)
        assert isinstance(failed, ApiError)
        return expected

    assert play(model, scene) == expected


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "no frame of this protocol"),
        (b"MRKV\x02\0\0\0" + bytes(8), "no frame of this protocol"),
        (b"MRKV\x01\0\0\0\xff\xff\xff\xff\0\0\0\0", "more than agreed"),
        (b"MRKV\x01\0\0\0\0\0\0\x01\0\0\0\x01", "more than agreed"),
        (b"MRKV\x01\0\0\0\0\0\0\x04\0\0\0\0\xff\xff\xff\xff", "cannot be read"),
    ],
)
def test_garbage_is_refused_with_a_reason(model: Model, said: bytes, why: str) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", source.port)
        writer.write(said)
        assert why.encode() in await reader.read()
        writer.close()
        return []

    play(model, scene)


@pytest.mark.parametrize(
    ("format", "name", "why"),
    [
        ({"fingerprint": "other"}, "r", "fingerprint is 'same' here and 'other' there"),
        ({"block_tokens": 16}, "r", "block_tokens is 4 here and 16 there"),
        ({}, "another", "there is no request 'another' here"),
    ],
)
def test_what_cannot_be_shared_is_refused_and_goes_on(
    model: Model, expected: list[int], format: dict[str, Any], name: str, why: str
) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        answer, first = await begun(source, 2)
        puller = Puller(target.loop, replace(target.format, **format))
        with pytest.raises(ApiError, match=why):
            await puller.running(params(source, name), target.remake)
        return first + await tokens_of(answer)

    assert play(model, scene) == expected


def test_who_stands_still_for_too_long_goes_on(model: Model, expected: list[int]) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        answer, first = await begun(source, 5)
        export = source.exports.find("r")
        tokens, _ = await export.stop(0, len(first))
        assert source.loop.has(answer)
        rest = await tokens_of(answer)
        assert rest[: len(tokens)] == tokens
        with pytest.raises(TransferError, match="it has ended"):
            export.release()
        return first + rest

    assert play(model, scene) == expected


def test_an_engine_that_has_failed_gives_and_takes_nothing(model: Model) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        kept = source.answer(PROMPT, 1, keeps=True)
        source.loop.submit(kept)
        await tokens_of(kept)
        target.loop.close(broken)
        where = params(source, kept.generations[0].id, move=False)
        with pytest.raises(ApiError, match="has failed"):
            await target.puller.prompt(where, target.answer(PROMPT, LENGTH))
        answer, _ = await begun(source, 3)
        source.loop.close(broken)
        with pytest.raises(ApiError, match=r"has failed|it has ended|is stopping"):
            await Side(model).puller.running(params(source), target.remake)
        with pytest.raises(ApiError, match="has failed"):
            await tokens_of(answer)
        return []

    play(model, scene)


def test_an_answer_given_up_while_it_waits_for_blocks_is_given_up_at_once(model: Model) -> None:
    async def scene(source: Side, target: Side, link: Link) -> list[int]:
        kept = source.answer(PROMPT, 1, keeps=True)
        source.loop.submit(kept)
        await tokens_of(kept)
        held, pool = Table(), target.loop.replica.batch.pool
        assert pool.grow(held, 60)
        answer = target.answer(PROMPT, LENGTH)
        where = params(source, kept.generations[0].id, move=False)
        pulling = asyncio.create_task(target.puller.prompt(where, answer))
        while not target.loop.has(answer):
            await asyncio.sleep(0.001)
        target.loop.abort(answer)
        with pytest.raises(ApiError, match="it was given up here"):
            await pulling
        pool.release(held)
        return []

    play(model, scene)
