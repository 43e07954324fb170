"""What a request's reader gets: every part in order, merged if it was slow, and an error if there is one."""

from __future__ import annotations

import asyncio

from millrace.engine.answer import Answer, Part
from millrace.engine.detokenizer import ByteDetokenizer
from millrace.engine.errors import ApiError, broken
from millrace.engine.generation import Delta, Generation, generation


def part(index: int, text: str, finish: str | None = None) -> Part:
    return Part(index, Delta(text, []), finish)


def answer(choices: int = 1) -> Answer:
    return Answer([waiting(str(choice)) for choice in range(choices)])


def waiting(name: str) -> Generation:
    return generation(name, [1], 4, detokenizer=ByteDetokenizer(lambda token: b""), block_tokens=4)


async def read(answer: Answer) -> list[list[tuple[int, str, str | None]]]:
    return [[(one.index, one.delta.text, one.finish) for one in parts] async for parts in answer.parts()]


def test_a_slow_reader_finds_what_it_missed_merged() -> None:
    one = answer()
    for text in ("a", "b", "c"):
        one.push(part(0, text))
    one.push(part(0, "d", "stop"))
    assert asyncio.run(read(one)) == [[(0, "abcd", "stop")]]


def test_a_quick_reader_gets_every_part() -> None:
    async def exchange() -> list[list[tuple[int, str, str | None]]]:
        one = answer(2)
        reader = asyncio.create_task(read(one))
        for push in (part(0, "a"), part(1, "x", "length"), part(0, "b", "stop")):
            one.push(push)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return await reader

    assert asyncio.run(exchange()) == [[(0, "a", None)], [(1, "x", "length")], [(0, "b", "stop")]]


def test_an_error_comes_after_what_was_said_before_it() -> None:
    async def exchange() -> list[str]:
        one, texts = answer(), []
        one.push(part(0, "a"))
        one.close(broken())
        try:
            async for parts in one.parts():
                texts += [part.delta.text for part in parts]
        except ApiError as error:
            texts.append(str(error))
        return texts

    assert asyncio.run(exchange()) == ["a", "The engine has failed."]


def test_closing_ends_a_reader_that_waits() -> None:
    async def exchange() -> list[list[tuple[int, str, str | None]]]:
        one = answer()
        reader = asyncio.create_task(read(one))
        await asyncio.sleep(0)
        one.close()
        return await reader

    assert asyncio.run(exchange()) == []
