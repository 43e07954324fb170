"""From a request's body to sequences: its prompts, the limits, and the parameters the checkpoint suggests."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from millrace.core.draw import draw
from millrace.core.replica import Limits
from millrace.engine.answer import Answer
from millrace.engine.errors import ApiError, too_long, too_many, unknown_model
from millrace.engine.generation import Ending, Generation, generation
from millrace.engine.prompts import Prompt, Prompts
from millrace.engine.protocol import ChatBody, CompletionBody
from millrace.engine.sampling import Sampling
from millrace.engine.tokenizer import TextTokenizer
from millrace.engine.wire import Attached

COMPLETION_TOKENS = 16
_TAKEN_OVER = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
)


def context_tokens(limits: Limits) -> int:
    """Tokens that one sequence may have, prompt and answer together; the last one needs no KV cache."""
    return min(limits.context_tokens, limits.kv_blocks * limits.block_tokens + 1)


class Service(Struct, frozen=True, kw_only=True):
    """One checkpoint as it is served: the names it answers to, and what its sequences have in common.

    At most `waiting` sequences may wait at once.
    """

    names: tuple[str, ...]
    prompts: Prompts
    tokenizer: TextTokenizer
    sampling: Sampling
    end_tokens: frozenset[int]
    vocab: int
    limits: Limits
    waiting: int

    @property
    def context_tokens(self) -> int:
        """Tokens that one sequence may have, prompt and answer together."""
        return context_tokens(self.limits)

    def check_model(self, name: str | None) -> str:
        """The name to answer under; ApiError if it is not ours."""
        if name is not None and name not in self.names:
            raise unknown_model(name)
        return name or self.names[0]

    def check_size(self, prompts: int, choices: int) -> None:
        """ApiError for more answers than may ever wait: to try again would not help."""
        if prompts * choices > self.waiting:
            raise too_many(prompts, choices, self.waiting)

    async def complete(self, body: CompletionBody, prompts: Sequence[Prompt], id: str) -> Answer:
        """Sequences that complete each prompt, `n` times each."""
        lengths = [
            self._length(prompt, body.max_tokens, COMPLETION_TOKENS, param="prompt") for prompt in prompts
        ]
        return await self._answer(body, prompts, lengths, id, logprobs=body.logprobs)

    async def chat(self, body: ChatBody, prompt: Prompt, id: str) -> Answer:
        """`n` sequences that answer a chat, as long as the context allows unless the body says less."""
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        limit = body.max_completion_tokens or body.max_tokens
        length = self._length(prompt, limit, self.context_tokens, param="messages")
        return await self._answer(body, [prompt], [length], id, logprobs=logprobs)

    async def _answer(
        self,
        body: CompletionBody | ChatBody,
        prompts: Sequence[Prompt],
        lengths: Sequence[int],
        id: str,
        *,
        logprobs: int | None,
    ) -> Answer:
        sampling, ending = self._sampling(body, logprobs), self._ending(body)
        generations: list[Generation] = []
        for prompt, length in zip(prompts, lengths, strict=True):
            if body.min_tokens is not None and body.min_tokens > length:
                raise ApiError(f"min_tokens must be <= max_tokens, which is {length}", param="min_tokens")
            for choice in range(body.choices):
                # A thousand long sequences take a second to make: let others have their turn in between.
                await asyncio.sleep(0)
                generations.append(
                    generation(
                        f"{id}-{len(generations)}",
                        prompt.tokens,
                        length,
                        detokenizer=self.tokenizer.detokenizer(skip_special=body.skip_special_tokens),
                        block_tokens=self.limits.block_tokens,
                        sampling=msgspec.structs.replace(sampling, seed=draw(sampling.seed, choice)),
                        ending=ending,
                    )
                )
        if body.resume:
            self._resume(generations[0], body.resume.token_ids)
        for one in generations:
            one.sequence.keeps, one.sequence.priority = body.keeps, body.priority or 0
        return Answer(generations)

    def take_over(self, attached: Attached) -> Answer:
        """The answer that another engine has begun, as it is there. ValueError if it is none that goes on."""
        answering = attached.answering
        assert answering is not None
        begun = generation(
            f"{answering.id}-{uuid4().hex[:8]}",
            attached.prompt,
            answering.max_tokens,
            detokenizer=self.tokenizer.detokenizer(skip_special=answering.skip_special),
            block_tokens=self.limits.block_tokens,
            sampling=answering.sampling,
            ending=answering.ending,
        )
        begun.resume(attached.tokens)
        begun.sequence.cached_tokens = answering.cached_tokens
        return Answer([begun])

    def _resume(self, begun: Generation, tokens: list[int]) -> None:
        if wrong := [token for token in tokens if not 0 <= token < self.vocab]:
            raise ApiError(f"resume: token {wrong[0]} is not below {self.vocab}", param="resume")
        try:
            begun.resume(tokens)
        except ValueError as error:
            raise ApiError(f"resume: {error}", param="resume") from error

    def _length(self, prompt: Prompt, asked: int | None, default: int, *, param: str) -> int:
        """Tokens the answer may have: what was asked for, or the default as far as there is room."""
        if not prompt.tokens:
            raise ApiError("prompt must have at least one token", param=param)
        room = self.context_tokens - len(prompt.tokens)
        if room < (asked or 1):
            raise too_long(len(prompt.tokens), asked or 1, self.context_tokens, param=param)
        return asked or min(default, room)

    def _sampling(self, body: CompletionBody | ChatBody, logprobs: int | None) -> Sampling:
        given: dict[str, Any] = {name: getattr(body, name) for name in _TAKEN_OVER}
        given["seed"] = secrets.randbits(63) if body.seed is None else body.seed
        given["logit_bias"] = self._logit_bias(body.logit_bias or {})
        given["logprobs"] = logprobs
        said = {name: value for name, value in given.items() if value is not None}
        sampling = msgspec.structs.replace(self.sampling, **said)
        # -1, or as many as there are, means all; no tensor could hold every number that a client may send.
        top_k = sampling.top_k if 0 < sampling.top_k < self.vocab else 0
        return msgspec.structs.replace(sampling, top_k=top_k)

    def _logit_bias(self, given: dict[str, float]) -> dict[int, float]:
        try:
            biases = {int(token): min(max(bias, -100.0), 100.0) for token, bias in given.items()}
        except ValueError as error:
            raise ApiError("logit_bias: keys must be token ids", param="logit_bias") from error
        if wrong := [token for token in biases if not 0 <= token < self.vocab]:
            raise ApiError(f"logit_bias: token {wrong[0]} is not below {self.vocab}", param="logit_bias")
        return biases

    def _ending(self, body: CompletionBody | ChatBody) -> Ending:
        tokens = frozenset(body.stop_token_ids or ())
        if not body.ignore_eos:
            tokens |= self.end_tokens
        # A token beyond the vocabulary never comes, so it ends nothing.
        inside = frozenset(token for token in tokens if 0 <= token < self.vocab)
        return Ending(tokens=inside, strings=body.stops, include_string=body.include_stop_str_in_output)
