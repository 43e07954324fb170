"""Hashes a prompt in blocks of tokens, which are made here or asked of an engine that serves the model.

A prefix cache holds blocks of tokens, so to predict exactly what it will find one needs the prompt's tokens
as the engine makes them: with its chat template, its defaults and its version of the tokenizer. Only the
engine has all of these for sure, so it is asked (`/tokenize`, as vLLM and our engine have it), over a
connection that is open anyway. With a tokenizer of the same files here that is done once for chats
and once for texts: if it says something else, it is believed, and asked from then on. An engine that does
not answer in time is left alone for a while, and the prompt is hashed in blocks of bytes: then nothing is
known of it. llama.cpp, which asks for other fields, finds no tokens in any prompt: that is no answer.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from time import monotonic
from types import MappingProxyType
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from millrace.core.blocks import chain_contents, contents_of, root_of
from millrace.core.prompt import Kind
from millrace.core.request import Request
from millrace.gateway.fleet import Fleet, Member
from millrace.gateway.metrics import Metrics
from millrace.gateway.probe import ProbeError, post
from millrace.gateway.settings import GatewaySettings

HASHED_TOKENS = 8192  # as many as blocks of bytes stand for
REMEMBERED = 1024
REST_S = 1.0
MUTE_S = 60.0  # for engines that do not know the question
TOKENS = 1 << 31
PATH = b"/tokenize"

_PASSED = (
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
)


class _Fields(Struct):
    messages: Raw = Raw()
    prompt: Raw = Raw()
    tools: Raw = Raw()
    add_generation_prompt: Raw = Raw()
    continue_final_message: Raw = Raw()
    add_special_tokens: Raw = Raw()
    chat_template: Raw = Raw()
    chat_template_kwargs: Raw = Raw()


class _Answer(Struct):
    tokens: list[Annotated[int, Meta(ge=0, lt=TOKENS)]]


class Question(Struct, frozen=True):
    """What to ask an engine to learn a prompt's tokens, or the tokens, if the client sent those."""

    body: bytes = b""
    tokens: tuple[int, ...] = ()
    chat: bool = False


class Tokenizer(Protocol):
    """Makes tokens of prompts without an engine."""

    async def tokens_of(self, question: bytes) -> list[int] | None:
        """Return what an engine would answer to `/tokenize`; None if only an engine can tell."""


NO_TOKENIZERS: Mapping[str, Tokenizer] = MappingProxyType({})
_decode = msgspec.json.Decoder(_Fields).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class Tokens:
    """Finds the tokens of prompts; remembers the blocks of the last ones. `metrics` count how it went.

    `tokenizers` are by the names of models; "" is for all that have none of their own.
    """

    def __init__(
        self,
        fleet: Fleet,
        metrics: Metrics,
        settings: GatewaySettings,
        tokenizers: Mapping[str, Tokenizer],
    ) -> None:
        assert settings.block_tokens is not None
        self._fleet, self._counts, self._tokenizers = fleet, metrics.tokenized, tokenizers
        self._right: dict[tuple[str, bool], bool] = {}
        self._block_tokens, self._within_s = settings.block_tokens, settings.tokenize_within_s
        self._known: OrderedDict[bytes, tuple[int, tuple[int, ...]]] = OrderedDict()
        self._rests_until_s: dict[str, float] = {}
        self._turns = 0

    def question(self, request: Request, kind: Kind, body: bytes) -> Question | None:
        """Return what to ask about a request; None if there is no asking, so that its blocks are of bytes."""
        if kind not in ("chat", "text"):
            return None
        fields = _decode(body)
        if kind == "chat":
            return Question(_body(request.model, b"messages", bytes(fields.messages), fields), chat=True)
        try:
            prompt = _only(msgspec.json.decode(fields.prompt) if fields.prompt else None)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # text that is none was not looked at so far; its engine will say so
        if isinstance(prompt, str):
            return Question(_body(request.model, b"prompt", msgspec.json.encode(prompt), fields))
        return Question(tokens=prompt) if prompt else None

    async def found(self, request: Request, question: Question) -> Request:
        """Return the request with its tokens counted and in blocks, or as it was if nobody says in time."""
        if question.tokens:
            return self._hashed(request, question.tokens)
        place = blake2b(question.body, digest_size=16).digest()
        if place in self._known:
            self._known.move_to_end(place)
            self._counts["remembered"] += 1
            count, blocks = self._known[place]
            return replace(request, prompt_tokens=count, blocks=blocks, block_tokens=self._block_tokens)
        tokens = await self._tokens_of(request.model, question)
        if tokens is None:
            return request
        made = self._hashed(request, tokens)
        self._known[place] = made.prompt_tokens, made.blocks
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return made

    async def _tokens_of(self, model: str, question: Question) -> list[int] | None:
        """Make the tokens here, if that is known to be right or nobody says what is."""
        tokenizer, case = self._tokenizer(model), (model, question.chat)
        if tokenizer is None or self._right.get(case) is False:
            return await self._ask(model, question.body)
        try:
            async with asyncio.timeout(self._within_s):
                made = await tokenizer.tokens_of(question.body)
        except TimeoutError:
            self._counts["late"] += 1
            return None
        if made is None:
            return await self._ask(model, question.body)
        told = None if case in self._right else await self._ask(model, question.body)
        if told is not None and told != made:
            self._note_difference(case)
            return told
        if told is not None:
            self._right.setdefault(case, True)
        self._counts["made"] += 1
        return made

    def _note_difference(self, case: tuple[str, bool]) -> None:
        self._counts["differs"] += 1
        if self._right.get(case) is not False:
            self._right[case] = False
            model, chat = case
            of = f"{'a chat' if chat else 'a text'} for {model}"
            print(
                f"the tokenizer makes other tokens of {of} than its engine, which is asked", file=sys.stderr
            )

    def _tokenizer(self, model: str) -> Tokenizer | None:
        """Return the model's own tokenizer, or that of the model it adapts, or the one for all."""
        card = self._fleet.catalogue.get(model)
        if card is None:
            return None
        parent = card.get("parent")
        names = (model, parent if isinstance(parent, str) else "", "")
        return next((self._tokenizers[name] for name in names if name in self._tokenizers), None)

    def _hashed(self, request: Request, tokens: tuple[int, ...] | list[int]) -> Request:
        card = self._fleet.catalogue.get(request.model, {})
        root = root_of(request.model if card.get("parent") else "")
        contents = contents_of(tokens[:HASHED_TOKENS], self._block_tokens)
        return replace(
            request,
            prompt_tokens=len(tokens) or 1,
            blocks=chain_contents(contents, root),
            block_tokens=self._block_tokens,
        )

    async def _ask(self, model: str, body: bytes) -> list[int] | None:
        """Ask the next of the engines that serve the model and are not left alone."""
        member = self._next(model)
        if member is None:
            self._counts["nobody"] += 1
            return None
        rest_s = REST_S
        try:
            async with asyncio.timeout(self._within_s):
                status, answer = await post(member.engine, PATH, body)
            if status == 200 and (tokens := _decode_answer(answer).tokens):
                self._counts["asked"] += 1
                return tokens
            rest_s = MUTE_S if status in (404, 405, 501) else REST_S if status == 200 else 0.0
            outcome = "refused"
        except TimeoutError:
            outcome = "late"
        except (ProbeError, msgspec.DecodeError, UnicodeDecodeError):
            outcome = "failed"
        self._counts[outcome] += 1
        self._rests_until_s[member.engine.id] = monotonic() + rest_s
        return None

    def _next(self, model: str) -> Member | None:
        now_s = monotonic()
        able = [
            member
            for member in self._fleet.members.values()
            if member.phase == "ready"
            and model in member.spec.models
            and self._rests_until_s.get(member.engine.id, now_s) <= now_s
        ]
        self._turns += 1
        return able[self._turns % len(able)] if able else None


def _only(prompt: Any) -> str | tuple[int, ...]:
    """Return the only prompt; nothing if there are several, which may share no more than their beginning."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    return tuple(prompt) if isinstance(prompt, list) and all(map(_is_token, prompt)) else ()


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value < TOKENS


def _body(model: str, name: bytes, prompt: bytes, fields: _Fields) -> bytes:
    passed = [(field, bytes(getattr(fields, field))) for field in _PASSED]
    parts = [b'"%b":%b' % (field.encode(), value) for field, value in passed if value]
    first = [b'"model":%b' % msgspec.json.encode(model), b'"%b":%b' % (name, prompt)]
    return b"{%b}" % b",".join(first + parts)
