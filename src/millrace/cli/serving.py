"""How `millrace serve` reads names of models, and says its options: in errors, and to the demo's gateway."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from millrace.gateway.names import Target

OPTIONS = {
    "backends": "--backend",
    "specs": "--specs",
    "bootstraps": "--bootstrap",
    "aliases": "--alias",
    "fallbacks": "--fallback",
    "scrape_s": "--scrape",
    "stall_timeout_s": "--stall-timeout",
    "drain_s": "--drain",
    "max_body_bytes": "--max-body",
    "kv_events": "--kv-events",
    "block_tokens": "--block-tokens",
    "tokenize_within_s": "--tokenize-within",
    "prefix_knowledge": "--prefix-knowledge",
    "prefix_index_bytes": "--prefix-index-bytes",
    "prefix_ttl_s": "--prefix-ttl",
    "max_attempts": "--max-attempts",
    "max_held": "--max-held",
    "max_hold_s": "--max-hold",
    "max_waiting": "--max-waiting",
    "ratio of a retry budget": "--retry-ratio",
    "reserve of a retry budget": "--retry-reserve",
    "floor_per_s of a retry budget": "--retry-floor",
}
"""What settings are called where a person sets them."""

_WEIGHTED = re.compile(r"(.+):(\d+(?:\.\d+)?)")
_SETTING = re.compile(rf"({'|'.join(OPTIONS)})(?=:| is )")


@contextmanager
def in_options() -> Iterator[None]:
    """Let a ValueError that begins with a setting begin with its option."""
    try:
        yield
    except ValueError as error:
        raise ValueError(_SETTING.sub(lambda found: OPTIONS[found[1]], str(error), count=1)) from None


def aliases_of(texts: list[str]) -> dict[str, Target]:
    """Read `NAME=MODEL` and `NAME=MODEL:WEIGHT,MODEL:WEIGHT`."""
    return {name: _target(name, models) for name, models in map(_pair, texts)}


def fallbacks_of(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """Read `MODEL=OTHER,OTHER`."""
    return {model: tuple(filter(None, others.split(","))) for model, others in map(_pair, texts)}


def words_of(said: Mapping[str, object], *, leave_out: Collection[str]) -> list[str]:
    """Return the command line that says these options, by their parameters' names."""
    words: list[str] = []
    for name, value in said.items():
        if name == "answer_as_asked":
            words += [] if value else ["--answer-as-served"]
        elif isinstance(value, bool) and name not in leave_out:
            words += [f"--{name.replace('_', '-')}"] if value else []
        elif name not in leave_out and value is not None:
            values = value if isinstance(value, list | tuple) else [value]
            words += [word for one in values for word in (f"--{name.replace('_', '-')}", str(one))]
    return words


def _pair(text: str) -> tuple[str, str]:
    name, _, models = text.partition("=")
    if not name or not models:
        raise ValueError(f"cannot read {text!r}; write NAME=MODEL, such as gpt-4o-mini=demo")
    return name, models


def _target(name: str, models: str) -> Target:
    shares = dict(map(_share, models.split(",")))
    if "" in shares or len(shares) != models.count(",") + 1:
        raise ValueError(f"cannot read the alias {name!r}={models!r}; name each model once, like a:90,b:10")
    return models if list(shares) == [models] else shares


def _share(text: str) -> tuple[str, float]:
    """Only a number is a weight: Ollama's models have colons too, as in `llama3:8b`."""
    found = _WEIGHTED.fullmatch(text)
    return (found[1], float(found[2])) if found else (text, 1.0)
