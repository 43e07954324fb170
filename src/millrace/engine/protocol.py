"""The bodies of requests: OpenAI's fields and vLLM's extensions.

A field listed here is honoured or refused by name (see `wishes`); others are ignored, as clients expect.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from millrace.engine.errors import ApiError

Body = TypeVar("Body", bound=Struct)


class StreamOptions(Struct, kw_only=True):
    """What a stream reports beside its text."""

    include_usage: bool = False


class ResponseFormat(Struct, kw_only=True):
    """Only plain text is served."""

    type: str = "text"


class Resume(Struct, kw_only=True):
    """An answer that broke off elsewhere: the tokens of its prompt, and those that its client has."""

    prompt_token_ids: list[int]
    token_ids: list[int]


class KvTransferParams(Struct, kw_only=True):
    """Where a KV cache goes or comes from, in the fields of vLLM's NIXL connector; those unknown are ignored.

    With `do_remote_decode` another engine will answer, and this one keeps the prompt's blocks for it. With
    `do_remote_prefill` they are to be fetched from there. `do_remote_move` is Millrace's own: the answer to
    the request of that id is under way there, and is to go on here.
    """

    do_remote_decode: bool = False
    do_remote_prefill: bool = False
    do_remote_move: bool = False
    remote_engine_id: str | None = None
    remote_request_id: str | None = None
    remote_block_ids: Any = None
    remote_host: str | None = None
    remote_port: int | None = None

    @property
    def fetches(self) -> bool:
        """Whether a KV cache is to come from elsewhere."""
        return self.do_remote_prefill or self.do_remote_move


class ConstraintFields(Struct, kw_only=True):
    """What changes an answer in ways that this engine cannot: listed so that it is refused, not ignored."""

    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    structured_outputs: Any = None
    structural_tag: Any = None
    use_beam_search: Any = None
    prompt_logprobs: Any = None
    truncate_prompt_tokens: Any = None
    allowed_token_ids: Any = None
    bad_words: Any = None
    logits_processors: Any = None


class SamplingFields(ConstraintFields, kw_only=True):
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
    return_token_ids: bool | None = None
    priority: int | None = None
    resume: Resume | None = None
    kv_transfer_params: KvTransferParams | None = None

    @property
    def keeps(self) -> bool:
        """Whether the prompt's KV cache is for another engine."""
        return self.kv_transfer_params is not None and self.kv_transfer_params.do_remote_decode

    @property
    def fetches(self) -> KvTransferParams | None:
        """Where the KV cache is to come from, if it is."""
        params = self.kv_transfer_params
        return params if params is not None and params.fetches else None

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
    chat_template: Any = None
    continue_final_message: Any = None
    documents: Any = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    web_search_options: Any = None


class TokenizeBody(Struct, kw_only=True):
    """`POST /tokenize`: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f"The request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ApiError("The request body is nested too deeply.") from error


def _field(message: str) -> str | None:
    """The first name in msgspec's "... - at `$.stop[0]`" or "... missing required field `prompt`"."""
    path = message.rpartition("`$.")[2] if "`$." in message else message.partition("field `")[2]
    name = path.partition("`")[0].partition("[")[0].partition(".")[0]
    return name or None
