"""The bodies of answers in OpenAI's shapes, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from millrace.engine.answer import Part
from millrace.engine.generation import Generation
from millrace.engine.sampling import Logprob
from millrace.engine.tokenizer import TextTokenizer


class Envelope(Struct, frozen=True):
    """What every body of one request repeats."""

    id: str
    created: int
    model: str

    def around(self, object: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A body with these choices."""
        fixed = {"id": self.id, "object": object, "created": self.created, "model": self.model}
        return {**fixed, "choices": choices, **more}


class Told(Struct, frozen=True, kw_only=True):
    """What clients are told of tokens (`return_token_ids`, as in vLLM), and were told before.

    `prompts` are those of each choice. The first tokens of a `resumed` answer, and its prompt's, are known.
    """

    prompts: Sequence[list[int]] = ()
    ids: bool = False
    resumed: Sequence[int] | None = None


NO_IDS = Told()


class Format(Protocol):
    """How one endpoint writes its answers."""

    def chunk(self, part: Part) -> list[dict[str, Any]]:
        """The events of a stream that tell a part; none if there is nothing to tell."""

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The body that tells finished choices."""

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The event that ends a stream whose client asked for its usage."""


def usage(generations: Sequence[Generation], choices: int) -> dict[str, Any]:
    """Tokens read and written; a prompt with several choices counts once."""
    prompts = generations[::choices]
    prompt_tokens = sum(one.sequence.prompt_tokens for one in prompts)
    generated = sum(one.generated for one in generations)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": prompt_tokens + generated,
        "prompt_tokens_details": {"cached_tokens": sum(one.sequence.cached_tokens for one in prompts)},
    }


class ChatFormat:
    """`/v1/chat/completions`."""

    def __init__(
        self, envelope: Envelope, tokenizer: TextTokenizer, *, logprobs: bool, told: Told = NO_IDS
    ) -> None:
        self._envelope, self._tokenizer, self._logprobs, self._told = envelope, tokenizer, logprobs, told
        self._begun: set[int] = set() if told.resumed is None else {0}

    def chunk(self, part: Part) -> list[dict[str, Any]]:
        """A choice begins with its role."""
        events = []
        if part.index not in self._begun:
            self._begun.add(part.index)
            events.append(self._event(part, {"role": "assistant", "content": ""}) | self._prompt(part))
        if part.delta.text or part.finish or part.delta.logprobs or self._told.ids:
            delta = {"content": part.delta.text} if part.delta.text else {}
            more = self._logprobs_of(part) | {"finish_reason": part.finish} | _token_ids(part, self._told)
            events.append(self._event(part, delta, **more))
        return events

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Each choice is a message."""
        choices = []
        for part in parts:
            message = {"role": "assistant", "content": part.delta.text}
            why = {"finish_reason": part.finish, **_token_ids(part, self._told)}
            told = {"message": message, "logprobs": None, **self._logprobs_of(part), **why}
            choices.append({"index": part.index, **told})
        return self._envelope.around("chat.completion", choices, **self._prompt(parts[0]))

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """A chunk without choices."""
        return self._envelope.around("chat.completion.chunk", [], usage=usage)

    def _event(self, part: Part, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": part.index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return self._envelope.around("chat.completion.chunk", [choice])

    def _prompt(self, part: Part) -> dict[str, Any]:
        return {"prompt_token_ids": self._told.prompts[part.index]} if self._told.ids else {}

    def _logprobs_of(self, part: Part) -> dict[str, Any]:
        if not self._logprobs:
            return {}
        return {"logprobs": {"content": [self._logprob(one) for one in part.delta.logprobs]}}

    def _logprob(self, one: Logprob) -> dict[str, Any]:
        top = [self._candidate(token, value) for token, value in one.top]
        return {**self._candidate(one.token, one.logprob), "top_logprobs": top}

    def _candidate(self, token: int, logprob: float) -> dict[str, Any]:
        raw = self._tokenizer.token_bytes(token)
        return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}


class CompletionFormat:
    """`/v1/completions`; `echo` is the prompt to repeat in front of each choice, if any."""

    def __init__(
        self,
        envelope: Envelope,
        tokenizer: TextTokenizer,
        *,
        logprobs: bool,
        echo: Sequence[str] = (),
        told: Told = NO_IDS,
    ) -> None:
        self._envelope, self._tokenizer, self._logprobs, self._told = envelope, tokenizer, logprobs, told
        self._echo = dict(enumerate(echo))
        self._begun: set[int] = set() if told.resumed is None else {0}
        self._offsets = {0: sum(len(self._text(token)) for token in told.resumed or ())}

    def chunk(self, part: Part) -> list[dict[str, Any]]:
        """One event, unless there is nothing to tell."""
        choice = self._choice(part)
        told = choice["text"] or part.finish or part.delta.logprobs or self._told.ids
        return [self._envelope.around("text_completion", [choice])] if told else []

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Each choice is a text."""
        return self._envelope.around("text_completion", [self._choice(part) for part in parts])

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """A chunk without choices."""
        return self._envelope.around("text_completion", [], usage=usage)

    def _choice(self, part: Part) -> dict[str, Any]:
        text = self._echo.pop(part.index, "") + part.delta.text
        logprobs = self._logprobs_of(part) if self._logprobs else None
        choice = {"index": part.index, "text": text, "logprobs": logprobs, "finish_reason": part.finish}
        return choice | self._prompt(part) | _token_ids(part, self._told)

    def _prompt(self, part: Part) -> dict[str, Any]:
        """A choice's first event says what its prompt was."""
        if not self._told.ids or part.index in self._begun:
            return {}
        self._begun.add(part.index)
        return {"prompt_token_ids": self._told.prompts[part.index]}

    def _logprobs_of(self, part: Part) -> dict[str, Any]:
        tokens = [self._text(one.token) for one in part.delta.logprobs]
        offset, offsets = self._offsets.get(part.index, 0), []
        for token in tokens:
            offsets.append(offset)
            offset += len(token)
        self._offsets[part.index] = offset
        return {
            "tokens": tokens,
            "token_logprobs": [one.logprob for one in part.delta.logprobs],
            "top_logprobs": [self._alternatives(one) for one in part.delta.logprobs],
            "text_offset": offsets,
        }

    def _alternatives(self, one: Logprob) -> dict[str, float]:
        """The likeliest tokens and the chosen one; the likelier of two that read the same."""
        found = {self._text(one.token): one.logprob}
        return found | {self._text(token): value for token, value in reversed(one.top)}

    def _text(self, token: int) -> str:
        return self._tokenizer.token_bytes(token).decode(errors="replace")


def _token_ids(part: Part, told: Told) -> dict[str, Any]:
    return {"token_ids": part.delta.tokens} if told.ids else {}
