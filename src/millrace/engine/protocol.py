"""The bodies of requests: OpenAI's fields and vLLM's extensions. Fields that are not listed are ignored."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from millrace.engine.errors import ApiError

MOST_CHOICES = 128
MOST_LOGPROBS = 20

Body = TypeVar("Body", bound=Struct)


class StreamOptions(Struct, kw_only=True):
    """What a stream reports beside its text."""

    include_usage: bool = False


class ResponseFormat(Struct, kw_only=True):
    """Only plain text is served."""

    type: str = "text"


class SamplingFields(Struct, kw_only=True):
    """What completions and chat completions have in common. None means: as the checkpoint suggests."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    response_format: ResponseFormat | None = None

    @property
    def choices(self) -> int:
        """Answers to give to each prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, however they were given."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)


class CompletionBody(SamplingFields, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | list[Any]
    echo: bool = False
    suffix: str | None = None
    logprobs: int | None = None
    add_special_tokens: bool = True


class Message(Struct, kw_only=True, omit_defaults=True):
    """One message; what a template may want beside role and content is passed on."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class ChatBody(SamplingFields, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class TokenizeBody(Struct, kw_only=True):
    """`POST /tokenize`: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True


class DetokenizeBody(Struct, kw_only=True):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: list[int]


def parse(raw: bytes, kind: type[Body]) -> Body:
    """Decode a body; ApiError names the field that is wrong."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        raise ApiError(f"Invalid request body: {text}", param=_field(text)) from error
    except msgspec.DecodeError as error:
        raise ApiError(f"The request body is not valid JSON: {error}") from error


def _field(message: str) -> str | None:
    """The first name in msgspec's "... - at `$.stop[0]`" or "... missing required field `prompt`"."""
    path = message.rpartition("`$.")[2] if "`$." in message else message.partition("field `")[2]
    name = path.partition("`")[0].partition("[")[0].partition(".")[0]
    return name or None


class Range(Struct, frozen=True):
    """The values a field may have; `open` excludes the lower bound."""

    low: float
    high: float
    open: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open else self.low <= value) and value <= self.high


_RANGES = {
    "n": Range(1, MOST_CHOICES),
    "temperature": Range(0, 100),
    "top_p": Range(0, 1, open=True),
    "top_k": Range(-1, float("inf")),
    "min_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, 100, open=True),
    "max_tokens": Range(1, float("inf")),
    "max_completion_tokens": Range(1, float("inf")),
    "min_tokens": Range(0, float("inf")),
    "top_logprobs": Range(0, MOST_LOGPROBS),
}


def check(body: CompletionBody | ChatBody) -> None:
    """Raise ApiError for a value out of range, and for a wish that this engine cannot grant."""
    for name, allowed in _RANGES.items():
        value = getattr(body, name, None)
        if value is not None and value not in allowed:
            bound = f"{'>' if allowed.open else '>='} {allowed.low:g} and <= {allowed.high:g}"
            raise ApiError(f"{name} must be {bound}, not {value}", param=name)
    for name, wish in _unserved(body).items():
        raise ApiError(f"{name}: {wish}", param=name, code="unsupported_parameter")


def _unserved(body: CompletionBody | ChatBody) -> dict[str, str]:
    wishes = {}
    if body.best_of is not None and body.best_of != body.choices:
        wishes["best_of"] = "only best_of equal to n is served"
    if body.response_format and body.response_format.type != "text":
        wishes["response_format"] = "only {'type': 'text'} is served"
    if isinstance(body, CompletionBody):
        return wishes | _unserved_completion(body)
    if body.tools and body.tool_choice != "none":
        wishes["tools"] = "tool calls are not served; set tool_choice to 'none' to show tools to the template"
    if body.top_logprobs and not body.logprobs:
        wishes["top_logprobs"] = "needs logprobs: true"
    return wishes


def _unserved_completion(body: CompletionBody) -> dict[str, str]:
    wishes = {}
    if body.suffix:
        wishes["suffix"] = "inserting text in front of a suffix is not served"
    if body.logprobs is not None and body.echo:
        wishes["logprobs"] = "log probabilities of an echoed prompt are not served"
    if body.logprobs is not None and not 0 <= body.logprobs <= MOST_LOGPROBS:
        wishes["logprobs"] = f"must be >= 0 and <= {MOST_LOGPROBS}"
    return wishes
