"""One request on its way through the fleet."""

from __future__ import annotations

from math import inf

from msgspec import Struct

from millrace.control.horizon import NO_TRAIL, Trail
from millrace.core.request import Request


class Flight(Struct, eq=False):
    """From arrival to its one end: held (no `replica`), sent, then started.

    `request` is as it arrived, or as it is for the fallback it turned to; `model` is the one asked for.
    `number` is its place in the order of arrival; `expires_s` is when holding it any longer is pointless, at
    the latest at `held_until_s`, when its patience is at an end;
    `queued_tokens` is what it was charged to the replica's queue; `tried` are the replicas it failed on,
    and with as many `attempts` as are `allowed` its model is given up.
    `prefill_on` computes its prompt for `replica`; None if nobody does, or it is done. It was last sent at
    `sent_s`, and its first token came at `started_s`; its KV cache is on the way to `moving_to`.
    It came in at `arrived_s`.
    It is not its cache that goes there if it `replays`. By the ways that `failed` it could not leave.
    `resumed_tokens` of its answer came from replicas that broke; its request counts them to the prompt.
    `trail` is what was known of its prompt where it was sent, as long as it stays there.
    """

    request: Request
    number: int
    model: str
    allowed: int
    expires_s: float = inf
    replica: str | None = None
    attempts: int = 0
    started: bool = False
    queued_tokens: int = 0
    tried: frozenset[str] = frozenset()
    prefill_on: str | None = None
    sent_s: float = 0.0
    started_s: float = 0.0
    moving_to: str | None = None
    resumed_tokens: int = 0
    arrived_s: float = 0.0
    held_until_s: float = inf
    replays: bool = False
    failed: frozenset[str] = frozenset()
    trail: Trail = NO_TRAIL
