"""Why a request of a log went where it did, and where another one would have gone at some moment of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from millrace.control.controller import Controller
from millrace.control.hindsight.inquiry import Answer, Inquiry
from millrace.control.log import Entry, Recording, Retelling, controller_of, tell
from millrace.core.event import Arrived, Dispatch, Failed, Move, Started
from millrace.core.request import Request, Slo
from millrace.policies import rebuild


class Question(Struct, frozen=True, kw_only=True):
    """A request that nobody sent. Its prompt begins like that of the request `prefix_of`, for so many tokens.

    What is not said is as in that request. Without one, the model is the one that is served, and the prompt
    is like no other.
    """

    id: str = "asked"
    model: str | None = None
    prompt_tokens: int | None = None
    prefix_of: str | None = None
    prefix_tokens: int | None = None
    adapter: str | None = None
    session: str | None = None
    slo_ttft_s: float | None = None


def explain_logged(
    lines: Iterable[bytes], request_id: str, *, attempt: int = 1, policy: Any | None = None
) -> Answer:
    """Tell a log again up to a decision about one of its requests, and ask why it was taken.

    With a `policy`, ask that one instead, which learned what there was to learn. Raises ValueError if no such
    decision was taken, and what reading a log does.
    """
    recording = Recording(lines)
    asked = rebuild("routing", recording.header.routing) if policy is None else policy
    inquiry = Inquiry(asked, request_id, attempt)
    told = Retelling(recording, inquiry)
    for _ in told:
        if inquiry.is_over:
            break
    answer = inquiry.answer
    if answer is None:
        raise ValueError(f"the log has no decision about a request {request_id!r}")
    if not inquiry.is_over and inquiry.sent:
        raise ValueError(f"{request_id!r} was sent {inquiry.sent} times; attempt is {attempt}")
    rest = (recorded for _, recorded in recording) if inquiry.is_over else iter(())
    return replace(answer, ttft_s=_ttft_s(answer, rest), first_difference=told.first_difference)


def explain_asked(
    lines: Iterable[bytes], question: Question, at_s: float, *, policy: Any | None = None
) -> Answer:
    """Tell a log again up to a moment, and ask where a request would go then; of which policy, as above.

    Raises ValueError if the question names nobody in the log or leaves the model open, and what reading does.
    """
    recording = Recording(lines)
    asked = rebuild("routing", recording.header.routing) if policy is None else policy
    inquiry = Inquiry(asked)
    controller, like, is_past = controller_of(recording.header, witness=inquiry), None, False
    for number, recorded in recording:
        event = recorded.event
        if isinstance(event, Arrived) and event.request.id == question.prefix_of:
            like = event.request
        is_past = is_past or event.now_s > at_s
        if not is_past:
            tell(controller, event, number)
        elif like is not None or question.prefix_of is None:
            break
    if like is None and question.prefix_of is not None:
        raise ValueError(f"the log has no request {question.prefix_of!r} to begin like")
    request = _request(question, like, controller)
    return inquiry.ask(request, controller.view(at_s, request.model))


def _request(question: Question, like: Request | None, controller: Controller) -> Request:
    """Return the request that the question is about."""
    plain = like or Request(
        id="", model=question.model or _only_model(controller), prompt_tokens=0, max_tokens=1
    )
    prompt_tokens = plain.prompt_tokens if question.prompt_tokens is None else question.prompt_tokens
    if prompt_tokens < 1:
        raise ValueError("prompt_tokens is missing; say how long the prompt is, or whose it begins like")
    shared = prompt_tokens if question.prefix_tokens is None else min(prompt_tokens, question.prefix_tokens)
    return replace(
        plain,
        id=question.id,
        model=question.model or plain.model,
        prompt_tokens=prompt_tokens,
        blocks=plain.blocks[: shared // plain.block_tokens],
        adapter=question.adapter or plain.adapter,
        session=question.session or plain.session,
        slo=plain.slo if question.slo_ttft_s is None else Slo(ttft_s=question.slo_ttft_s),
    )


def _only_model(controller: Controller) -> str:
    models = {model for replica in controller.state.replicas.values() for model in replica.spec.models}
    if len(models) != 1:
        raise ValueError(f"model is missing; there are: {', '.join(sorted(models)) or 'none yet'}")
    return models.pop()


def _ttft_s(answer: Answer, rest: Iterator[Entry]) -> float | None:
    """Find how long after the decision the first token came from where the request was sent."""
    for recorded in rest:
        event = recorded.event
        if isinstance(event, Started) and event.request_id == answer.request_id:
            return event.now_s - answer.now_s
        moved = (action for action in recorded.actions if isinstance(action, Dispatch | Move))
        if any(action.request_id == answer.request_id for action in moved):
            return None
        if isinstance(event, Failed) and event.request_id == answer.request_id:
            return None
    return None
