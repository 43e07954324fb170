"""What every policy must keep to, as one call in a test of your own:

    def test_my_policy_keeps_the_rules() -> None:
        check_routing_policy(MyPolicy())

A broken rule is an AssertionError that names the rule and shows what the policy was asked.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import replace

from millrace.core.fleet import (
    Decision,
    FleetView,
    Held,
    Hold,
    Left,
    QueueingPolicy,
    Reject,
    Route,
    RoutingPolicy,
)
from millrace.core.replica import Report
from millrace.core.request import Request
from millrace.policies import Described, Family, describe, rebuild
from millrace.testing.cases import Case, Queue, some_decisions, some_queues

HOUR_S = 4096.0  # a power of two, so that shifted times keep their exact distances


def check_routing_policy(policy: RoutingPolicy, decisions: Iterable[Case] | None = None) -> None:
    """Check that a policy's answers are lawful and always the same; by default, 200 of them.

    It routes to ready replicas that serve the model, and to one to avoid only if all are; prompts are
    computed elsewhere only by replicas that may do that; it holds or rejects when no replica is able;
    its answer does not depend on the order of the replicas, the hour, or what it was asked before; it can be
    rebuilt from its settings; it changes nothing that it is shown.
    """
    again: RoutingPolicy = _rebuilt("routing", policy)
    for case in some_decisions(200) if decisions is None else decisions:
        request = case.request
        for fleet in (case.fleet, _resting(case.fleet)):
            decision = _steady(lambda held, fleet: policy.route(held[0], fleet), [request], fleet)
            _require(_unlawful(decision, request, fleet), [request], fleet)
            rebuilt = again.route(request, fleet)
            _require(_differs(decision, rebuilt, "rebuilt from its settings"), [request], fleet)


def check_queueing_policy(policy: QueueingPolicy, queues: Iterable[Queue] | None = None) -> None:
    """Check that a policy yields each held request once, always in the same order; by default in 100 queues.

    It takes any iterable and need not be asked for more than the first; its order does not depend on the
    order of the replicas, the hour, or what it was asked before; it can be rebuilt from its settings; it
    changes nothing that it is shown. If it has `first`, that is who would be first in its order.
    """
    again: QueueingPolicy = _rebuilt("queueing", policy)
    for queue in some_queues(100) if queues is None else queues:
        held, fleet = list(queue.held), queue.fleet
        order = _steady(lambda held, fleet: _ids(policy.order(iter(held), fleet)), held, fleet)
        if sorted(order) != sorted(_ids(held)):
            _require(f"ordered the held requests as {order}; each must come exactly once", held, fleet)
        first = _ids(islice(policy.order(iter(held), fleet), 1))
        _require(_differs(order[:1], first, "asked for the first only"), held, fleet)
        rebuilt = _ids(again.order(iter(held), fleet))
        _require(_differs(order, rebuilt, "rebuilt from its settings"), held, fleet)
        if hasattr(policy, "first"):
            _check_first(_rebuilt("queueing", policy), held, fleet)


def _check_first(policy: Any, held: list[Request], fleet: FleetView) -> None:
    """Check that a policy which keeps its own order names the one that it would order first, one by one."""
    for number, request in enumerate(held):
        policy.note(Held(fleet.now_s, request, number))
    for model in {request.model for request in held}:
        waiting = [request for request in held if request.model == model]
        while waiting:
            first, ordered = policy.first(model, fleet), next(iter(policy.order(iter(waiting), fleet)))
            _require(_differs(ordered.id, first, "asked for the first by name"), waiting, fleet)
            waiting.remove(ordered)
            policy.note(Left(fleet.now_s, ordered))
        _require(_differs(None, policy.first(model, fleet), "nobody is held"), held, fleet)


def _steady(ask: Callable[[list[Request], FleetView], Any], held: list[Request], fleet: FleetView) -> Any:
    """Return the answer, having seen that asking changes nothing and that only what matters matters."""
    before = _pickled(fleet)
    answer = ask(held, fleet)
    for replica, was, now in zip(fleet.replicas, before, _pickled(fleet), strict=True):
        if was != now:
            _require(f"changed {replica.id!r}, which it may only read", held, fleet)
    for how, other in (
        ("asked again", ask(held, fleet)),
        ("shown the replicas in reverse", ask(held, replace(fleet, replicas=fleet.replicas[::-1]))),
        ("asked at another hour", ask(*_later(held, fleet))),
    ):
        _require(_differs(answer, other, how), held, fleet)
    return answer


def _unlawful(decision: Any, request: Request, fleet: FleetView) -> str | None:
    if not isinstance(decision, Route | Hold | Reject):
        return f"answered {decision!r}, which is no Route, Hold or Reject"
    try:
        msgspec.json.decode(msgspec.json.encode(decision), type=Decision)
    except (msgspec.MsgspecError, TypeError) as error:
        return f"answered {decision!r}, which a log cannot hold: {error}"
    able = [r.id for r in fleet.able(request)]
    if not isinstance(decision, Route):
        return None
    if decision.replica not in able:
        return f"chose {decision.replica!r}; able are: {', '.join(able) or 'none'}"
    both = [r.id for r in fleet.able(request) if r.spec.role == "both" and r.id != decision.replica]
    apart = [*fleet.prefilling(request), *(fleet.encoding(request) if request.media else ())]
    prefilling = [*(r.id for r in apart), *both]
    if decision.prefill_on not in (None, *prefilling):
        return f"prefills on {decision.prefill_on!r}; who does so are: {', '.join(prefilling) or 'none'}"
    return None


def _differs(answer: Any, other: Any, how: str) -> str | None:
    return None if other == answer else f"answered {answer!r}, but {other!r} when {how}"


def _rebuilt(family: Family, policy: Any) -> Any:
    described = describe(policy)
    logged = msgspec.json.decode(msgspec.json.encode(described), type=Described)
    again = rebuild(family, logged)
    if describe(again) != described:
        raise AssertionError(f"the policy's settings are {described}, but after a log {describe(again)}")
    return again


def _resting(fleet: FleetView) -> FleetView:
    return replace(fleet, replicas=[replace(r, phase="draining") for r in fleet.replicas])


def _later(held: list[Request], fleet: FleetView) -> tuple[list[Request], FleetView]:
    """Put the same question at another hour: every moment moves, every duration stays."""
    moved = [replace(r, deadline_s=_moved(r.deadline_s)) for r in held]
    replicas = [replace(r, report=_said_later(r.report)) for r in fleet.replicas]
    return moved, replace(fleet, now_s=fleet.now_s + HOUR_S, replicas=replicas)


def _said_later(report: Report | None) -> Report | None:
    return report and replace(report, now_s=report.now_s + HOUR_S)


def _moved(moment_s: float | None) -> float | None:
    return None if moment_s is None else moment_s + HOUR_S


def _pickled(fleet: FleetView) -> list[bytes]:
    return [pickle.dumps(r) for r in fleet.replicas]


def _ids(held: Iterable[Request]) -> list[str]:
    return [r.id for r in held]


def _require(complaint: str | None, held: list[Request], fleet: FleetView) -> None:
    if complaint:
        raise AssertionError("\n".join([f"the policy {complaint}", *_shown(held, fleet)]))


def _shown(held: list[Request], fleet: FleetView) -> Iterator[str]:
    """Show what differs from the defaults: a reader looks for the cause, not for the schema."""
    yield from (f"  {_brief(request)}" for request in held)
    yield f"  at {fleet.now_s} s, {fleet.routed} routed before, to avoid: {sorted(fleet.avoid) or 'none'}"
    yield from (f"  {_brief(replica)}" for replica in fleet.replicas)


def _brief(value: msgspec.Struct) -> str:
    told = {f.name: getattr(value, f.name) for f in msgspec.structs.fields(value)}
    plain = {f.name: f.default for f in msgspec.structs.fields(value)}
    shown = [f"{k}={_brief_value(v)}" for k, v in told.items() if v != plain[k] and k != "prefix"]
    return f"{type(value).__name__}({', '.join(shown)})"


def _brief_value(value: Any) -> str:
    return _brief(value) if isinstance(value, msgspec.Struct) else repr(value)
