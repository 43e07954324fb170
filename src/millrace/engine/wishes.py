"""Which of a request's wishes this engine grants: the values a field may have, and fields it must refuse."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from millrace.engine.chat import RESERVED
from millrace.engine.errors import ApiError
from millrace.engine.protocol import ChatBody, CompletionBody

MOST_CHOICES = 128
MOST_LOGPROBS = 20


class Range(Struct, frozen=True):
    """The values a field may have, without an upper bound if `high` is None; `open` excludes the lower."""

    low: int
    high: int | None = None
    open: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open else self.low <= value
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        low = f"{'>' if self.open else '>='} {self.low}"
        return low if self.high is None else f"{low} and <= {self.high}"


RANGES = {
    "n": Range(1, MOST_CHOICES),
    "seed": Range(-(2**63), 2**63 - 1),
    "priority": Range(-(2**63), 2**63 - 1),
    "temperature": Range(0, 100),
    "top_p": Range(0, 1, open=True),
    "top_k": Range(-1),
    "min_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, 100, open=True),
    "max_tokens": Range(1),
    "max_completion_tokens": Range(1),
    "min_tokens": Range(0),
    "logprobs": Range(0, MOST_LOGPROBS),
    "top_logprobs": Range(0, MOST_LOGPROBS),
}

CONSTRAINED = "constrained output is not served; leave it out and check the text yourself"
CHANGED = "not served; leave it out"
UNSERVED = {
    "guided_json": CONSTRAINED,
    "guided_regex": CONSTRAINED,
    "guided_choice": CONSTRAINED,
    "guided_grammar": CONSTRAINED,
    "structured_outputs": CONSTRAINED,
    "structural_tag": CONSTRAINED,
    "use_beam_search": CHANGED,
    "prompt_logprobs": CHANGED,
    "truncate_prompt_tokens": CHANGED,
    "allowed_token_ids": CHANGED,
    "bad_words": CHANGED,
    "logits_processors": CHANGED,
    "chat_template": "not served; the checkpoint's own template is used, so leave it out",
    "continue_final_message": "not served; send the text so far as the prompt of /v1/completions",
    "documents": "not served; put their text into a message",
    "functions": "function calls are not served; leave it out",
    "function_call": "function calls are not served; leave it out",
    "audio": CHANGED,
    "web_search_options": CHANGED,
}


def check(body: CompletionBody | ChatBody) -> None:
    """Raise ApiError for a value out of range, and for a wish that this engine cannot grant."""
    for name, allowed in RANGES.items():
        value = getattr(body, name, None)
        if value is not None and value not in allowed:
            raise ApiError(f"{name} must be {allowed}, not {value}", param=name)
    for name, wish in _refused(body).items():
        raise ApiError(f"{name}: {wish}", param=name, code="unsupported_parameter")


def _refused(body: CompletionBody | ChatBody) -> dict[str, str]:
    wishes = {name: wish for name, wish in UNSERVED.items() if _asked(getattr(body, name, None))}
    if body.best_of is not None and body.best_of != body.choices:
        wishes["best_of"] = "only best_of equal to n is served"
    if body.resume and body.choices > 1:
        wishes["resume"] = "only a single answer can go on; leave n out"
    if (body.keeps or body.fetches) and body.choices > 1:
        wishes["kv_transfer_params"] = "only the cache of a single answer can move; leave n out"
    if body.keeps and (body.stream or _length(body) != 1):
        wishes["kv_transfer_params"] = "a prompt for another engine takes max_tokens 1, and no stream"
    if body.response_format and body.response_format.type != "text":
        wishes["response_format"] = "only {'type': 'text'} is served"
    return wishes | (_refused_chat(body) if isinstance(body, ChatBody) else _refused_completion(body))


def _length(body: CompletionBody | ChatBody) -> int | None:
    asked = body.max_completion_tokens if isinstance(body, ChatBody) else None
    return asked or body.max_tokens


def _asked(value: Any) -> bool:
    """Whether a field says more than that its feature is not wanted."""
    return not (value is None or value is False or value in ("", "none", []))


def _refused_chat(body: ChatBody) -> dict[str, str]:
    wishes = {}
    if body.tools and body.tool_choice != "none":
        wishes["tools"] = "tool calls are not served; set tool_choice to 'none' to show tools to the template"
    if body.top_logprobs and not body.logprobs:
        wishes["top_logprobs"] = "needs logprobs: true"
    if taken := sorted(RESERVED.intersection(body.chat_template_kwargs or ())):
        wishes["chat_template_kwargs"] = f"{taken[0]!r} is given to the template by the engine; leave it out"
    return wishes


def _refused_completion(body: CompletionBody) -> dict[str, str]:
    wishes = {}
    if body.suffix:
        wishes["suffix"] = "inserting text in front of a suffix is not served"
    if body.logprobs is not None and body.echo:
        wishes["logprobs"] = "log probabilities of an echoed prompt are not served"
    return wishes
