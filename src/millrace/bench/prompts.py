"""Prompts for a small model from a recorded trace: real arrivals, scaled lengths, exact token counts.

Prompts are lists of token ids, which every OpenAI-shaped `/v1/completions` takes, so no tokenizer can
disagree about their length; answers ignore the end-of-sequence token, so their length is exact as well.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice

import msgspec
from msgspec import Struct

from millrace.core.blocks import chain_tokens
from millrace.core.draw import draw_below
from millrace.core.trace import TraceRecord

PATH = "/v1/completions"


class Shape(Struct, frozen=True, kw_only=True):
    """How trace records become requests that a small model can serve.

    Arrivals from `from_s` on come `speed` times as fast as recorded. Lengths are divided and clamped.
    Each request belongs to one of `groups` groups, the k-th with a popularity of 1 / k ** `skew` (Zipf);
    a group shares a prefix of `prefix_min_tokens` to `prefix_max_tokens`, of which a prompt uses as much
    as fits into `shared_part` of its length. Token ids are drawn from `first_token` to `vocab_tokens` - 1.
    """

    model: str
    vocab_tokens: int
    first_token: int = 256
    seed: int = 0
    requests: int = 400
    from_s: float = 0.0
    speed: float = 1.0
    input_divisor: float = 4.0
    input_min_tokens: int = 16
    input_max_tokens: int = 768
    output_divisor: float = 8.0
    output_min_tokens: int = 2
    output_max_tokens: int = 48
    groups: int = 12
    skew: float = 1.0
    prefix_min_tokens: int = 128
    prefix_max_tokens: int = 512
    shared_part: float = 0.8
    block_tokens: int = 16

    def __post_init__(self) -> None:
        for name in ("requests", "speed", "input_divisor", "output_divisor", "groups", "block_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("input", "output", "prefix"):
            low, high = getattr(self, f"{name}_min_tokens"), getattr(self, f"{name}_max_tokens")
            if not 1 <= low <= high:
                raise ValueError(f"{name}_min_tokens is {low}; it must be 1 to {name}_max_tokens = {high}")
        if not 0 <= self.first_token < self.vocab_tokens:
            raise ValueError(f"first_token is {self.first_token}; it must be below vocab_tokens")
        if not 0 <= self.shared_part <= 1:
            raise ValueError(f"shared_part is {self.shared_part}; it must be between 0 and 1")


class Planned(Struct, frozen=True, kw_only=True):
    """A request that will be sent at `scheduled_s` on the run's clock, whatever happened before.

    `body` is exactly what the gateway will read; `blocks` are chained hashes of the prompt's full blocks
    of `block_tokens` tokens, as an engine with such blocks would cache them.
    """

    id: str
    scheduled_s: float
    group: int
    prompt: tuple[int, ...]
    max_tokens: int
    blocks: tuple[int, ...]
    block_tokens: int
    body: bytes


def shape(records: Iterable[TraceRecord], form: Shape) -> list[Planned]:
    """Plan the first requests of the window, in order of arrival; the same arguments give the same bytes."""
    window = (r for r in records if r.t_s >= form.from_s and not r.failed)
    groups = _Groups(form)
    planned = [_plan(record, groups, form) for record in islice(window, form.requests)]
    return sorted(planned, key=lambda one: one.scheduled_s)


class _Groups:
    """The shared prefixes, and who belongs to which."""

    def __init__(self, form: Shape) -> None:
        self._seed = form.seed
        self._popularity = list(accumulate((k + 1) ** -form.skew for k in range(form.groups)))
        self.prefixes = [self._prefix(group, form) for group in range(form.groups)]

    def of(self, record_id: str) -> int:
        """Return the group of a record."""
        share = draw_below(2**53, self._seed, "group", record_id) / 2**53
        return bisect_right(self._popularity, share * self._popularity[-1])

    def _prefix(self, group: int, form: Shape) -> list[int]:
        span_tokens = form.prefix_max_tokens - form.prefix_min_tokens + 1
        length = form.prefix_min_tokens + draw_below(span_tokens, form.seed, "prefix length", group)
        return list(_tokens(length, form, "prefix", group))


def _plan(record: TraceRecord, groups: _Groups, form: Shape) -> Planned:
    length = _clamp(record.input_tokens / form.input_divisor, form.input_min_tokens, form.input_max_tokens)
    answer = _clamp(
        record.output_tokens / form.output_divisor, form.output_min_tokens, form.output_max_tokens
    )
    group = groups.of(record.id)
    shared = groups.prefixes[group][: int(length * form.shared_part)]
    prompt = (*shared, *_tokens(length - len(shared), form, "own", record.id))
    return Planned(
        id=record.id,
        scheduled_s=(record.t_s - form.from_s) / form.speed,
        group=group,
        prompt=prompt,
        max_tokens=answer,
        blocks=tuple(chain_tokens(prompt, form.block_tokens, digest_bytes=8)),
        block_tokens=form.block_tokens,
        body=_body(form.model, prompt, answer),
    )


def _tokens(count: int, form: Shape, *names: object) -> Iterator[int]:
    span = form.vocab_tokens - form.first_token
    return (form.first_token + draw_below(span, form.seed, *names, i) for i in range(count))


def _clamp(value: float, low: int, high: int) -> int:
    return min(high, max(low, round(value)))


def _body(model: str, prompt: tuple[int, ...], max_tokens: int) -> bytes:
    return msgspec.json.encode(
        {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
