"""From what a fleet knows which prompts are in which engine's cache: live, and simulated."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from msgspec import UNSET

from millrace.cli.output import EXIT_USAGE, CommandError
from millrace.control import ControlSettings
from millrace.gateway import GatewaySettings, Tokenizer
from millrace.gateway.kv_events.endpoint import Endpoint

KNOWING = "What is known of prompt caches"
BLOCK_TOKENS = 16  # vLLM's, and our engine's

Knowledge = Annotated[
    Literal["none", "sent", "answers", "events"],
    typer.Option(
        help="Nothing, what was sent where, that as far as answers show it is still there, or what engines "
        "say in KV events.",
        rich_help_panel=KNOWING,
    ),
]
Ttl = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="How long what was sent is believed to be there; for ever, or 2 s with events.",
        rich_help_panel=KNOWING,
    ),
]
IndexBytes = Annotated[
    int, typer.Option(metavar="BYTES", help="Memory for each engine's index.", rich_help_panel=KNOWING)
]
KvEvents = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=ADDRESS",
        help="Where an engine publishes KV events, NAME=tcp://HOST:PORT\\[,replay=tcp://HOST:PORT] "
        "(repeatable).",
        rich_help_panel=KNOWING,
    ),
]
BlockTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Hash prompts in blocks of N tokens, which engines are asked for; 16 with events or a "
        "tokenizer, else bytes.",
        rich_help_panel=KNOWING,
    ),
]
Tokenizers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="\\[MODEL=]PATH",
        help="Folder with a model's tokenizer.json and chat template: tokens of prompts are counted here, "
        "and engines asked only to see that they say the same (repeatable).",
        rich_help_panel=KNOWING,
    ),
]
SimulatedBlockTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Policies know prompts in blocks of N tokens; the engines' with events, else the trace's.",
        rich_help_panel=KNOWING,
    ),
]
Within = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="How long a request waits for its tokens.", rich_help_panel=KNOWING),
]


def need_zmq() -> None:
    """Raise CommandError, which says how to install it, if pyzmq is missing."""
    if find_spec("zmq") is None:
        raise CommandError("pyzmq is not installed: pip install 'millrace[kv-events]'", EXIT_USAGE)


def fields_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the gateway's settings for these options. Raises ValueError, and CommandError without pyzmq."""
    if said["demo"] and said["prefix_knowledge"] == "events":
        raise ValueError(
            "--demo starts engines that publish no KV events: leave out --prefix-knowledge events"
        )
    endpoints = dict(map(Endpoint.parse, said["kv_events"] or []))
    if endpoints:
        need_zmq()
    block_tokens = said["block_tokens"]
    if block_tokens is None and (said["prefix_knowledge"] == "events" or said["tokenizer"]):
        block_tokens = BLOCK_TOKENS
    return {
        "kv_events": endpoints,
        "block_tokens": block_tokens,
        "tokenize_within_s": said["tokenize_within"],
    }


def tokenizers_of(texts: list[str] | None) -> dict[str, Tokenizer]:
    """Load tokenizers by the names of models, "" for all others, from `[MODEL=]PATH`.

    Raises ValueError for what is none, and CommandError without the packages that it takes.
    """
    if not texts:
        return {}
    if find_spec("tokenizers") is None or find_spec("jinja2") is None:
        raise CommandError(
            "tokenizers and jinja2 are not installed: pip install 'millrace[tokenizer]'", EXIT_USAGE
        )
    from millrace.engine.tokenizing import PromptTokenizer  # heavy, and an extra

    pairs = [text.rpartition("=")[::2] for text in texts]
    found = {model: PromptTokenizer.load(Path(path)) for model, path in pairs}
    if len(found) < len(texts):
        raise ValueError("--tokenizer: name one for each model, and one for all others")
    return dict(found)


def require_speakers(settings: GatewaySettings, control: ControlSettings) -> None:
    """Raise ValueError unless all who are to be believed speak, and all who speak are believed."""
    if settings.kv_events and control.prefix_knowledge != "events":
        raise ValueError("--kv-events are listened to with --prefix-knowledge events: say both, or neither")
    silent = sorted({backend.id for backend in settings.parsed} - settings.kv_events.keys())
    if control.prefix_knowledge == "events" and silent:
        raise ValueError(
            f"--prefix-knowledge events needs --kv-events for every --backend; {silent[0]!r} has none"
        )


def control_fields_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the controller's settings for these options; a log of what is usual says nothing of them."""
    knowledge, ttl_s = said["prefix_knowledge"], said["prefix_ttl"]
    return {
        "prefix_knowledge": UNSET if knowledge == "sent" else knowledge,
        "prefix_ttl_s": UNSET if ttl_s is None else ttl_s,
        "prefix_index_bytes": said["prefix_index_bytes"],
    }
