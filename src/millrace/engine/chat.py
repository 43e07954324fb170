"""Chat templates: how a checkpoint wants messages written as one prompt.

The environment is that of transformers: sandboxed, with `raise_exception`, `strftime_now`, a `tojson` that
does not escape HTML, loop controls and the `generation` tag, which only training gives a meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
# What a template's names mean is not for requests to change.
RESERVED = frozenset({"messages", "tools", "self", "raise_exception", "strftime_now", *SPECIAL_TOKENS})
# A template is a program that runs on what a client sends: whatever it stumbles over is the request's fault.
_STUMBLES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class ChatTemplate:
    """A checkpoint's chat template and the special tokens it may mention."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        self._special_tokens = special_tokens
        self._template = _environment().from_string(source)

    def render(self, messages: list[dict[str, Any]], values: Mapping[str, Any]) -> str:
        """Write the messages as a prompt, with more `values` by name.

        ValueError with the template's own words if it refuses them.
        """
        try:
            return self._template.render({**values, **self._special_tokens, "messages": messages})
        except _STUMBLES as error:
            raise ValueError(f"the model's chat template refuses these messages: {error}") from error


def load_chat_template(folder: Path) -> ChatTemplate | None:
    """The template of a checkpoint folder, None if it has none; ValueError if it is not valid."""
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_bytes()) if path.is_file() else {}
        beside = folder / "chat_template.jinja"
        source = beside.read_text() if beside.is_file() else _default(config.get("chat_template"))
        return None if source is None else ChatTemplate(source, _special_tokens(config))
    except (ValueError, AttributeError, jinja2.TemplateSyntaxError) as error:
        raise ValueError(f"{folder}: the chat template is not readable: {error}") from error


def _default(given: str | list[dict[str, str]] | None) -> str | None:
    """Several templates come as a list of names and templates, of which `default` is for plain chat."""
    if isinstance(given, list):
        return {one["name"]: one["template"] for one in given}.get("default")
    return given


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    given = {name: config.get(name) for name in SPECIAL_TOKENS}
    texts = {name: one["content"] if isinstance(one, dict) else one for name, one in given.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


class _GenerationTag(Extension):
    tags = {"generation"}  # noqa: RUF012 - jinja2's own interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Keep what is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, **options: Any
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
