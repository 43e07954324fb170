"""The HTTP face of an engine: OpenAI's endpoints, some of vLLM's, and errors that are always JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TypeVar
from uuid import uuid4

from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from millrace import __version__
from millrace.engine.answer import Answer
from millrace.engine.errors import ApiError, unknown_model
from millrace.engine.exports import Offer
from millrace.engine.loop import EngineLoop
from millrace.engine.metrics import Metrics
from millrace.engine.prompts import Prompt, separate, template_values
from millrace.engine.protocol import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    KvTransferParams,
    TokenizeBody,
    parse,
)
from millrace.engine.replies import Arriving, Reply, StreamedReply, json_response
from millrace.engine.request_id import RequestIds
from millrace.engine.responses import ChatFormat, CompletionFormat, Envelope, Format, Told
from millrace.engine.service import Service
from millrace.engine.transfers import Transfers
from millrace.engine.wishes import check

Body = TypeVar("Body", bound=Struct)
Asked = CompletionBody | ChatBody


class Api:
    """The endpoints of one engine."""

    def __init__(
        self, service: Service, loop: EngineLoop, metrics: Metrics, transfers: Transfers, *, body_bytes: int
    ) -> None:
        self._service, self._loop, self._metrics, self._transfers = service, loop, metrics, transfers
        self._body_bytes = body_bytes
        self._created = int(time.time())

    def app(self) -> RequestIds:
        """The ASGI application."""
        routes = [
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat_completions, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/version", self.version),
        ]
        handlers = {ApiError: _refused, HTTPException: _unrouted, Exception: _crashed}
        return RequestIds(Starlette(routes=routes, exception_handlers=handlers))

    async def completions(self, request: Request) -> Reply | Arriving:
        """`POST /v1/completions`"""
        body = await self._body(request, CompletionBody)
        check(body)
        if (params := body.fetches) and params.do_remote_move:
            return self._moving(request, body, params)
        envelope = self._envelope("cmpl", body.model)
        self._service.check_size(len(separate(body.prompt)), body.choices)
        given = body.resume.prompt_token_ids if body.resume else body.prompt
        prompts = await self._service.prompts.of_completion(given, special=body.add_special_tokens)
        echo = [self._text(prompt) for prompt in prompts for _ in range(body.choices)] if body.echo else []
        shape = self._format(body, envelope, _told(body, prompts), echo=[] if body.resume else echo)
        answer = await self._service.complete(body, prompts, envelope.id)
        return self._begin(request, body, answer, envelope, shape)

    async def chat_completions(self, request: Request) -> Reply | Arriving:
        """`POST /v1/chat/completions`"""
        body = await self._body(request, ChatBody)
        check(body)
        if (params := body.fetches) and params.do_remote_move:
            return self._moving(request, body, params)
        envelope = self._envelope("chatcmpl", body.model)
        self._service.check_size(1, body.choices)
        if body.resume:
            (prompt,) = await self._service.prompts.of_completion(body.resume.prompt_token_ids, special=False)
        else:
            prompt = await self._service.prompts.of_chat(
                body.messages, template_values(body), special=body.add_special_tokens
            )
        shape = self._format(body, envelope, _told(body, [prompt]))
        answer = await self._service.chat(body, prompt, envelope.id)
        return self._begin(request, body, answer, envelope, shape)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`"""
        return json_response({"object": "list", "data": [self._card(name) for name in self._service.names]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{name}`"""
        name = request.path_params["name"]
        if name not in self._service.names:
            raise unknown_model(name)
        return json_response(self._card(name))

    async def tokenize(self, request: Request) -> Response:
        """`POST /tokenize`, as vLLM has it."""
        body = await self._body(request, TokenizeBody)
        self._service.check_model(body.model)
        prompt = await self._service.prompts.of_question(body)
        count, longest = len(prompt.tokens), self._service.context_tokens
        return json_response({"count": count, "max_model_len": longest, "tokens": prompt.tokens})

    async def detokenize(self, request: Request) -> Response:
        """`POST /detokenize`, as vLLM has it."""
        body = await self._body(request, DetokenizeBody)
        self._service.check_model(body.model)
        if not all(0 <= token < self._service.vocab for token in body.tokens):
            raise ApiError(f"tokens must be token ids below {self._service.vocab}", param="tokens")
        text = await asyncio.to_thread(self._service.tokenizer.decode, body.tokens)
        return json_response({"prompt": text})

    async def health(self, request: Request) -> Response:
        """`GET /health`: 200 while the engine takes requests, and one that drains says so."""
        if self._loop.draining:
            return json_response({"status": "draining"}, 503)
        return Response(status_code=200 if self._loop.healthy else 503)

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics` in Prometheus' text format."""
        return Response(self._metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def version(self, request: Request) -> Response:
        """`GET /version`"""
        return json_response({"version": __version__})

    def _envelope(self, kind: str, model: str | None) -> Envelope:
        return Envelope(f"{kind}-{uuid4().hex}", int(time.time()), self._service.check_model(model))

    def _format(self, body: Asked, envelope: Envelope, told: Told, *, echo: Sequence[str] = ()) -> Format:
        tokenizer = self._service.tokenizer
        if isinstance(body, ChatBody):
            return ChatFormat(envelope, tokenizer, logprobs=bool(body.logprobs), told=told)
        logprobs = body.logprobs is not None
        return CompletionFormat(envelope, tokenizer, logprobs=logprobs, echo=echo, told=told)

    def _begin(
        self, request: Request, body: Asked, answer: Answer, envelope: Envelope, format: Format
    ) -> Reply | Arriving:
        """Compute an answer, or its prompt for another engine, or all but its prompt."""
        if body.keeps:
            self._transfers.check_open()
        reply = self._reply(request, body, answer, envelope, format)
        if body.keeps:
            reply.more = lambda: self._transfers.handed(answer.generations[0])
        if (params := body.fetches) is None:
            self._loop.submit(answer)
            return reply

        async def comes() -> Reply:
            await self._transfers.puller.prompt(params, answer)
            return reply

        return Arriving(comes)

    def _moving(self, request: Request, body: Asked, params: KvTransferParams) -> Arriving:
        """Go on with an answer that is under way at another engine."""
        self._service.check_model(body.model)

        async def comes() -> Reply:
            answer, attached = await self._transfers.puller.running(params, self._service.take_over)
            along = attached.answering
            assert along is not None
            envelope = Envelope(along.id, along.created, along.model)
            told = Told(prompts=[attached.prompt], ids=body.return_token_ids is True, resumed=attached.tokens)
            return self._reply(request, body, answer, envelope, self._format(body, envelope, told))

        return Arriving(comes)

    def _reply(
        self, request: Request, body: Asked, answer: Answer, envelope: Envelope, format: Format
    ) -> Reply:
        if not body.stream:
            return Reply(self._loop, answer, format, choices=body.choices)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        reply = StreamedReply(self._loop, answer, format, choices=body.choices, include_usage=usage)
        request_id = request.headers.get("x-request-id")
        if request_id and self._transfers.open and len(answer.generations) == 1:
            offer = Offer(answer, envelope, body.skip_special_tokens)
            self._transfers.exports.offer(request_id, offer)
            reply.over = lambda: self._transfers.exports.withdraw(request_id, offer)
        return reply

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        raw = bytearray()
        async for piece in request.stream():
            raw += piece
            if len(raw) > self._body_bytes:
                raise ApiError(f"The body is longer than {self._body_bytes} bytes.", status=413)
        return parse(bytes(raw), kind)

    def _text(self, prompt: Prompt) -> str:
        return self._service.tokenizer.decode(prompt.tokens) if prompt.text is None else prompt.text

    def _card(self, name: str) -> dict[str, object]:
        fixed = {"object": "model", "created": self._created, "owned_by": "millrace"}
        length = self._service.context_tokens
        return {"id": name, **fixed, "resume": True, **self._transfers.card(), "max_model_len": length}


def _told(body: Asked, prompts: Sequence[Prompt]) -> Told:
    return Told(
        prompts=[prompt.tokens for prompt in prompts for _ in range(body.choices)],
        ids=body.return_token_ids is True,
        resumed=None if body.resume is None else body.resume.token_ids,
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    response = json_response(error.body, error.status)
    if error.status == 503:
        response.headers["retry-after"] = "1"
    return response


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return json_response(ApiError(message).body, error.status_code)


async def _crashed(request: Request, error: Exception) -> Response:
    return json_response(ApiError("The engine made a mistake; see its log.", type="api_error").body, 500)
