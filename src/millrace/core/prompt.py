"""What policies may read of an OpenAI-shaped HTTP body, without decoding the rest of it.

The gateway and the simulator both describe bodies here, so a policy sees the same `Request` in both worlds.
Prompts are measured in bytes and hashed in byte blocks: no tokenizer, no model (see `core.blocks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from millrace.core.blocks import chain_bytes
from millrace.core.request import Request, Slo

Kind = Literal["chat", "text", "embedding", "messages", "responses"]
NAME_LIMIT = 128  # characters of who asks and of a conversation's name that are kept
MOST = (1 << 63) - 1  # JSON has numbers that no float can take, and nobody means them
Count = Annotated[int, Meta(ge=0, le=MOST)]
Whole = Annotated[int, Meta(ge=-MOST, le=MOST)]

PROMPT_FIELD: dict[Kind, str] = {
    "chat": "messages",
    "text": "prompt",
    "embedding": "input",
    "messages": "messages",
    "responses": "input",
}
NO_SLO = Slo()
_FIELD_OF_ERROR = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_TOKEN_IDS = re.compile(rb"\[[\[\s]*\d")


class InvalidRequestError(ValueError):
    """A body no engine could answer; `param` is the field at fault, None if it is the whole body."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Measure(Struct, frozen=True, kw_only=True):
    """How bytes are turned into tokens and blocks.

    A block is `block_bytes` long, at most `hashed_blocks` of a prompt are hashed, and a request that
    names no limit is taken to want `max_tokens`.
    """

    bytes_per_token: float = 4.0
    block_bytes: int = 512
    hashed_blocks: int = 64
    max_tokens: int = 512

    def __post_init__(self) -> None:
        for name in ("bytes_per_token", "block_bytes", "max_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.hashed_blocks < 0:
            raise ValueError(f"hashed_blocks is {self.hashed_blocks}; it must not be negative")

    @property
    def block_tokens(self) -> int:
        """Tokens that a block of bytes stands for."""
        return round(self.block_bytes / self.bytes_per_token) or 1


class Asked(Struct, frozen=True):
    """A described body: the request, and how its answer shall be sent.

    `name` is what the client called the model, which the request has by its own name. `usage_wanted`: the
    client asked for a usage event in its stream. `stream_options`: it sent that field.
    """

    request: Request
    name: str
    stream: bool
    usage_wanted: bool
    stream_options: bool


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Fields(Struct):
    model: str
    messages: Raw = Raw()
    prompt: Raw = Raw()
    input: Raw = Raw()
    system: Raw = Raw()
    tools: Raw = Raw()
    stream: bool | None = None
    stream_options: _StreamOptions | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    max_output_tokens: Count | None = None
    priority: Whole | None = None
    user: str | None = None
    session_id: str | None = None
    prompt_cache_key: str | None = None


_decode = msgspec.json.Decoder(_Fields).decode


def describe(
    body: bytes,
    kind: Kind,
    *,
    id: str,
    tenant: str | None = None,
    session: str | None = None,
    slo: Slo = NO_SLO,
    measure: Measure,
    served: Callable[[str, str], str] | None = None,
) -> Asked:
    """Describe a body; `tenant` and `session` are what its headers said and win over the body's fields.

    `served` returns the model that a name stands for, given the name and who asks (the session, or else the
    request's id); without it names are models. Blocks belong to the model, whatever it was called.

    Raises InvalidRequestError, naming the field, when the body is no JSON object of the right types.
    """
    fields = _fields(body)
    prompt = _prompt(fields, kind)
    tokens, block_tokens = _count_tokens(prompt, measure)
    options = fields.stream_options
    session = session or _name(fields.session_id) or _name(fields.prompt_cache_key)
    model = fields.model if served is None else served(fields.model, session or id)
    request = Request(
        id=id,
        model=model,
        prompt_tokens=tokens,
        max_tokens=0 if kind == "embedding" else _max_tokens(fields, measure),
        tenant=tenant or _name(fields.user) or "default",
        session=session,
        blocks=_blocks(fields, model, prompt, measure),
        block_tokens=block_tokens,
        priority=fields.priority or 0,
        slo=slo,
    )
    wanted = isinstance(options, _StreamOptions) and options.include_usage is True
    return Asked(request, fields.model, fields.stream is True, wanted, options is not msgspec.UNSET)


def _name(said: str | None) -> str | None:
    return said[:NAME_LIMIT] if said else None


def _fields(body: bytes) -> _Fields:
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidRequestError("the body is nested too deeply") from None


def _wrong_type(message: str) -> InvalidRequestError:
    """Turn msgspec's message into one that names the field as the client wrote it."""
    at = _FIELD_OF_ERROR.search(message)
    if at and at[1]:
        return InvalidRequestError(f"{at[1]}: {message[: at.start()]}", at[1])
    missing = _MISSING.search(message)
    if missing:
        return InvalidRequestError(f"you must provide {missing[1]!r}", missing[1])
    return InvalidRequestError(f"the body must be a JSON object: {message}")


def _prompt(fields: _Fields, kind: Kind) -> bytes:
    name = PROMPT_FIELD[kind]
    prompt = bytes(getattr(fields, name))
    if name == "messages" and prompt[:1] != b"[":
        problem = "must be an array" if prompt else "is missing"
        raise InvalidRequestError(f"{name} {problem}; send a list of messages", name)
    if kind != "text" and not prompt:
        raise InvalidRequestError(f"you must provide {name!r}", name)
    if name == "prompt" and prompt not in (b"", b"null") and prompt[:1] not in (b'"', b"["):
        raise InvalidRequestError("prompt must be a string or an array", name)
    return prompt[1:-1] if prompt[:1] == b'"' else prompt


def _blocks(fields: _Fields, model: str, prompt: bytes, measure: Measure) -> tuple[int, ...]:
    """Hash the bytes that decide what a prefix cache can reuse, in the order of a chat template.

    Two models share nothing, and tools and system prompts come before the messages. A client that
    serialises a conversation the same way each turn makes each turn's bytes a prefix of the next.
    """
    head = prompt[: measure.block_bytes * measure.hashed_blocks]
    text = b"%b\n%b%b%b" % (model.encode(), bytes(fields.tools), bytes(fields.system), head)
    return chain_bytes(text, measure.block_bytes, limit=measure.hashed_blocks)


def _count_tokens(prompt: bytes, measure: Measure) -> tuple[int, int]:
    """Return the tokens of a prompt and of one of its blocks: counted if they came as ids, else estimated."""
    if _TOKEN_IDS.match(prompt):
        tokens = prompt.count(b",") + 1
        return tokens, max(1, round(measure.block_bytes * tokens / len(prompt)))
    return round(len(prompt) / measure.bytes_per_token) or 1, measure.block_tokens


def _max_tokens(fields: _Fields, measure: Measure) -> int:
    for limit in (fields.max_completion_tokens, fields.max_tokens, fields.max_output_tokens):
        if limit is not None:
            return limit
    return measure.max_tokens
