"""What a client asks for: the part of a request that policies may read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.answer_length import LengthPrediction


class Slo(Struct, frozen=True, kw_only=True):
    """What the client was promised; None promises nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None


class Media(Struct, frozen=True):
    """An image or a sound in a prompt, which an encoder turns into so many `tokens` in front of the text.

    `key` stands for its content: equal media have equal keys, and the same blocks in a prefix cache.
    """

    kind: Literal["image", "audio", "video"]
    key: int
    tokens: int


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request, as much of it as a decision needs. Never changed after arrival.

    `blocks` are chained hashes of the prompt's full leading blocks of `block_tokens` tokens each:
    two requests share their first k blocks exactly when their first k hashes are equal.
    `deadline_s` is a moment on the fleet's clock after which an answer is worthless. `fallbacks` are models
    to turn to, in this order, while `model` has no ready replica, or after it turned the request away or
    failed to answer it. `media` come before the text of the prompt, and their tokens are among its tokens:
    the blocks of both are one chain. `adapter` is the low-rank adapter that the model is to answer with.
    `lexical` are the numbers of `core.lexical`, if they are to be kept; `predicted` is what they say of its
    answer.
    """

    id: str
    model: str
    prompt_tokens: int
    max_tokens: int
    tenant: str = "default"
    session: str | None = None
    expected_tokens: int | None = None
    blocks: tuple[int, ...] = ()
    block_tokens: int = 16
    priority: int = 0
    deadline_s: float | None = None
    slo: Slo = Slo()
    fallbacks: tuple[str, ...] = ()
    adapter: str | None = None
    media: tuple[Media, ...] = ()
    lexical: tuple[int, ...] = ()
    predicted: LengthPrediction | None = None

    @property
    def encode_tokens(self) -> int:
        """Tokens of the prompt that an encoder makes of media."""
        return sum(one.tokens for one in self.media)

    def alternatives(self) -> Iterator[Request]:
        """Yield the request as it is for each of its fallbacks, with those left to turn to after that."""
        for number, model in enumerate(self.fallbacks, 1):
            yield replace(self, model=model, fallbacks=self.fallbacks[number:])
