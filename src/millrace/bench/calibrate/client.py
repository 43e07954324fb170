"""What a calibration asks of an engine: who it is, how far away it is, and answers with their times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from msgspec import Struct

from millrace.bench.answer import Answer
from millrace.bench.prompts import PATH
from millrace.bench.sse import SseParser
from millrace.core.calibration import Stream, stream_of
from millrace.core.suggest import unknown

MODELS_PATH = "/v1/models"
_TIMEOUT_S = 300.0
_SETTLED_GAPS = 2
_IDLE_CONNECTION_S = 2.0  # shorter than any server's own, so that none closes under a new request


class UnreachableError(Exception):
    """Nothing answers at the URL."""


class AnswerError(Exception):
    """The engine answers, but not as an OpenAI-shaped one that streams does."""


class Served(Struct, frozen=True):
    """A model that the engine serves; `max_model_len` is vLLM's, None where it is not told."""

    id: str
    max_model_len: int | None = None


class _Models(Struct):
    data: list[Served]


class Client:
    """One engine, named by the root of its URL, with or without `/v1`. Use it in `async with`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION_S)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        jar = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session
        await self._session.close()

    async def served(self, model: str | None) -> Served:
        """Return the model of this name, or the only one there is. Raises ValueError if there is none."""
        known = {one.id: one for one in await self._models()}
        if model is None:
            if len(known) != 1:
                names = ", ".join(sorted(known)) or "no model"
                raise ValueError(f"{self._url} serves {names}; choose one with --model NAME")
            return next(iter(known.values()))
        if model not in known:
            raise unknown("model", model, known)
        return known[model]

    async def round_trip_s(self) -> float:
        """Return the seconds of a request for which the engine takes no step."""
        began_s = _now_s()
        await self._models()
        return _now_s() - began_s

    async def stream(
        self, model: str, prompt: list[int], max_tokens: int, *, settled: Callable[[], None] | None = None
    ) -> Stream | None:
        """Ask for exactly so many tokens and return when each came; None if part of the prompt was cached.

        `settled` is called once it has a few tokens. Raises UnreachableError or AnswerError.
        """
        body = msgspec.json.encode(_asked(model, prompt, max_tokens))
        answer = Answer()
        sent_s = _now_s()
        try:
            await self._exchange(body, answer, settled)
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(self._url, error) from None
        outcome = answer.outcome("", scheduled_s=sent_s, now_s=_now_s(), prompt_tokens=len(prompt))
        if outcome.status != "completed" or answer.first_token_s is None:
            raise AnswerError(f"{self._url}{PATH}: {outcome.error or 'the answer holds no token'}")
        events_s = list(accumulate(answer.gaps_s, initial=answer.first_token_s))
        if outcome.output_tokens != max_tokens or 2 * len(events_s) < max_tokens:
            raise AnswerError(
                f"{self._url}{PATH}: asked for {max_tokens} tokens, got {outcome.output_tokens} in "
                f"{len(events_s)} events; the engine must honour ignore_eos and send tokens when it has them"
            )
        return None if outcome.cached_tokens else stream_of(sent_s, events_s, max_tokens)

    async def _exchange(self, body: bytes, answer: Answer, settled: Callable[[], None] | None) -> None:
        assert self._session
        headers = {"content-type": "application/json"}
        async with self._session.post(self._url + PATH, data=body, headers=headers) as response:
            if response.status != 200:
                answer.answer_http(response.status, await response.read())
                return
            parser = SseParser()
            async for piece in response.content.iter_any():
                now_s = _now_s()
                for event in parser.feed(piece):
                    answer.take(event, now_s)
                if settled and len(answer.gaps_s) >= _SETTLED_GAPS:
                    settled()
                    settled = None
            if settled:  # it ended before that
                settled()

    async def _models(self) -> list[Served]:
        assert self._session
        try:
            async with self._session.get(self._url + MODELS_PATH) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(self._url, error) from None
        try:
            return msgspec.json.decode(body, type=_Models).data
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise AnswerError(
                f"{self._url}{MODELS_PATH} answered {response.status}, and no list of models; "
                "give the root of an OpenAI-shaped endpoint"
            ) from None


def _asked(model: str, prompt: list[int], max_tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _unreachable(url: str, error: Exception) -> UnreachableError:
    return UnreachableError(f"{url} cannot be reached: {error or type(error).__name__}")


def _now_s() -> float:
    return asyncio.get_running_loop().time()
