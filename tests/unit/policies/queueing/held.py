"""Requests that are held and leave, told to a queueing policy as the kernel tells them."""

from __future__ import annotations

from typing import Any

from millrace.core.fleet import Held, Left, Sent
from millrace.core.request import Request
from millrace.testing import fakes

FLEET = fakes.fleet()


def hold(policy: Any, *requests: Request, now_s: float = 0.0) -> None:
    """Let these be held, in this order of arrival."""
    for number, request in enumerate(requests):
        policy.note(Held(now_s, request, number))


def send(policy: Any, request: Request, *, held: bool = True, moved: bool = False, cached: int = 0) -> None:
    """Let a request be sent, from the queue if it was held."""
    if held:
        policy.note(Left(0.0, request))
    policy.note(Sent(0.0, request, "r", moved, request.prompt_tokens - cached))


def served(policy: Any, *requests: Request, model: str = "m") -> list[str]:
    """Let what is held be sent in the policy's order; return the ids."""
    known, sent = {one.id: one for one in requests}, []
    while (name := policy.first(model, FLEET)) is not None:
        send(policy, known[name])
        sent.append(name)
    return sent


def order(policy: Any, *requests: Request) -> list[str]:
    """Return the ids in the order that a policy gives them when it is shown them all."""
    return [one.id for one in policy.order(iter(requests), FLEET)]
