"""Which streams can go on at another engine, and how that one is asked to: bodies and events. Pure.

Two kinds of engines can be asked. Ours takes the answer so far in the field `resume`, and goes on as if it
had begun it. vLLM takes it as the end of a prompt of token ids; what it would get wrong then (stop strings
and penalties that look back, log probabilities, output held to a grammar, tools) does not go on there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from millrace.core.prompt import Kind
from millrace.gateway.framing import FramingError
from millrace.gateway.transcript import Transcript
from millrace.gateway.usage import data_of, events_in

Dialect = Literal["millrace", "vllm"]

COMPLETIONS = b"/v1/completions"
DEFAULT_TOKENS = 16  # what completions may have unless they say otherwise, at OpenAI, vLLM and ours
_TRUNCATION = "truncate_prompt_tokens"  # what it was to cut is cut already
_ONLY_CHAT = ("messages", "max_completion_tokens", "logprobs", "top_logprobs", "chat_template_kwargs")
_NOTHING = (b"", b"null", b"false", b"0", b"0.0", b'""', b"[]", b'"none"', b'{"type":"text"}')


class _Fields(Struct):
    return_token_ids: bool | UnsetType | None = UNSET
    n: Raw = Raw()
    best_of: Raw = Raw()
    resume: Raw = Raw()
    prompt: Raw = Raw()
    echo: Raw = Raw()
    stop: Raw = Raw()
    logprobs: Raw = Raw()
    prompt_logprobs: Raw = Raw()
    presence_penalty: Raw = Raw()
    frequency_penalty: Raw = Raw()
    tools: Raw = Raw()
    functions: Raw = Raw()
    response_format: Raw = Raw()
    structured_outputs: Raw = Raw()
    bad_words: Raw = Raw()
    logits_processors: Raw = Raw()
    guided_json: Raw = Raw()
    guided_regex: Raw = Raw()
    guided_choice: Raw = Raw()
    guided_grammar: Raw = Raw()


_UNREADABLE = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    LookupError,
    TypeError,
    AttributeError,
)
_decode = msgspec.json.Decoder(_Fields).decode
_BEYOND_VLLM = _Fields.__struct_fields__[_Fields.__struct_fields__.index("echo") :]


class Resumable(Struct, frozen=True):
    """A stream that can go on at engines of these dialects.

    `told`: the client wants token ids itself. `said`: its body has the field `return_token_ids`.
    """

    dialects: frozenset[Dialect]
    told: bool
    said: bool


def resumable(body: bytes, kind: Kind) -> Resumable | None:
    """Judge the body of a stream; None if it can go on nowhere: several answers, or no tokens of text."""
    if kind not in ("chat", "text"):
        return None
    try:
        fields = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    several = _says(fields.n) not in (b"", b"null", b"1") or _says(fields.best_of) not in (b"", b"null", b"1")
    if several or _asks(fields.resume) or not _is_single(_says(fields.prompt)):
        return None
    beyond_vllm = any(_asks(getattr(fields, name)) for name in _BEYOND_VLLM) or _says(fields.logprobs) == b"0"
    dialects: frozenset[Dialect] = frozenset(("millrace",) if beyond_vllm else ("millrace", "vllm"))
    return Resumable(dialects, fields.return_token_ids is True, fields.return_token_ids is not UNSET)


def dialect_of(cards: Sequence[dict[str, Any]]) -> Dialect | None:
    """Return how an engine is asked to go on, as its entries of `/v1/models` tell; None if it cannot."""
    if cards and all(card.get("resume") is True for card in cards):
        return "millrace"
    return "vllm" if cards and all(card.get("owned_by") == "vllm" for card in cards) else None


def continuation(body: bytes, kind: Kind, dialect: Dialect, transcript: Transcript) -> bytes:
    """Return the body that asks for the rest of an answer; it goes to COMPLETIONS at vLLM."""
    prompt, tokens = transcript.prompt, transcript.tokens
    if dialect == "millrace":
        resume = msgspec.json.encode({"prompt_token_ids": prompt, "token_ids": tokens})
        return b'{"resume":%b,%b' % (resume, body[body.index(b"{") + 1 :])
    fields: dict[str, Any] = msgspec.json.decode(body)
    fields.pop(_TRUNCATION, None)
    limit = fields.get("max_tokens")
    if kind == "chat":
        limit = fields.get("max_completion_tokens") or limit
        fields = {name: value for name, value in fields.items() if name not in _ONLY_CHAT}
    elif "max_tokens" not in fields:
        limit = DEFAULT_TOKENS
    fields["max_tokens"] = None if limit is None else limit - len(tokens)
    if fields.get("min_tokens"):
        fields["min_tokens"] = max(0, fields["min_tokens"] - len(tokens))
    return msgspec.json.encode(fields | {"prompt": prompt + tokens})


class Continued:
    """Turns the events of a continuation into more events of the answer that it continues.

    `before` tokens of the answer came from other engines. A stream of vLLM's completions says whatever it
    says of a prompt that has those at its end.
    """

    def __init__(self, transcript: Transcript, kind: Kind, dialect: Dialect, *, told: bool) -> None:
        self._transcript, self._told = transcript, told
        self._retold = dialect == "vllm"
        self._chat = kind == "chat"
        self.before = len(transcript.tokens)

    def __call__(self, events: bytes) -> bytes:
        """Return whole events as the first engine would have sent them; note their tokens.

        Raises FramingError if they cannot be read, or begin the answer anew.
        """
        tokens: list[int] = []
        try:
            passed = b"".join([self._event(event, tokens) for event in events_in(events)])
        except _UNREADABLE as error:
            raise FramingError(f"an event of the rest of an answer cannot be read: {error!r}") from None
        self._transcript.add(tokens)
        return passed

    def counts(self, prompt: int, output: int) -> tuple[int, int]:
        """Return the tokens of the prompt and the whole answer, of which an engine counted these."""
        return (prompt - self.before, output + self.before) if self._retold else (prompt, output)

    def _event(self, event: bytes, tokens: list[int]) -> bytes:
        data, opening = data_of(event), self._transcript.opening
        assert opening is not None
        if data[:1] != b"{":
            return event
        body = msgspec.json.decode(data, type=dict[str, Any])
        if "choices" not in body:
            return event
        if not self._retold and any(one.get("prompt_token_ids") for one in (body, *body["choices"])):
            raise TypeError("it begins the answer anew")
        body |= {"id": opening.id, "created": opening.created, "model": opening.model}
        if self._retold and self._chat:
            body["object"] = "chat.completion.chunk"
        body["choices"] = [self._choice(choice, tokens) for choice in body["choices"]]
        if usage := body.get("usage"):
            prompt, output = self.counts(usage["prompt_tokens"], usage["completion_tokens"])
            body["usage"] = usage | {"prompt_tokens": prompt, "completion_tokens": output}
        return b"data: %b\n\n" % msgspec.json.encode(body)

    def _choice(self, choice: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
        tokens += choice["token_ids"]
        choice.pop("prompt_token_ids", None)
        if not self._told:
            choice.pop("token_ids", None)
        if self._retold and self._chat:
            delta = {"index": choice["index"], "delta": {"content": choice.pop("text")}}
            return delta | choice
        return choice


def _says(value: Raw) -> bytes:
    return bytes(value)


def _asks(value: Raw) -> bool:
    """Whether a field says more than that its feature is not wanted."""
    return b"".join(bytes(value).split()) not in _NOTHING


def _is_single(prompt: bytes) -> bool:
    """Whether a prompt is a text or a list of tokens, or none, as in a chat: not a list of those."""
    return prompt[:1] != b"[" or prompt[1:].lstrip()[:1].isdigit()
