"""A second set of books for a fleet, kept by looking only at events and actions, too simple to be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from math import inf

from msgspec import UNSET

from millrace.control import Controller, ControlSettings, RetryBudget
from millrace.core.event import (
    Action,
    Arrived,
    Cancel,
    Cancelled,
    Dispatch,
    Event,
    Failed,
    Finished,
    Refuse,
    Reported,
    Started,
)
from millrace.core.replica import Phase
from millrace.core.request import Request


@dataclass
class Open:
    """A request between its arrival and its end."""

    request: Request
    model: str
    allowed: int
    expires_s: float
    replica: str | None = None
    attempts: int = 0
    started: bool = False
    charged_tokens: int = 0
    ends: type[Action] | None = None  # the action that must end it now
    poor: bool = False  # it must end because too much was tried again already


def models_of(request: Request, first: str) -> list[str]:
    """The models a request may be for, from this one on."""
    models = [request.model, *request.fallbacks]
    return models[models.index(first) :]


@dataclass
class Member:
    """A replica as it last spoke of itself, and the blocks sent to it."""

    phase: Phase
    models: tuple[str, ...]
    blocks: set[int]


class Ledger:
    """Raises AssertionError as soon as an action makes no sense after the events before it."""

    def __init__(self, settings: ControlSettings, budget: RetryBudget) -> None:
        self.settings, self.budget = settings, budget
        self.open: dict[str, Open] = {}
        self.members: dict[str, Member] = {}
        self.retries = inf  # those that may still be made
        self.last_retry_s = 0.0

    def note(self, event: Event) -> None:
        """Write down what happened."""
        if isinstance(event, Arrived):
            assert event.request.id not in self.open
            asked, expires_s = event.request, self._expires_s(event.request, event.now_s)
            self.open[asked.id] = Open(asked, asked.model, self.settings.max_attempts, expires_s)
            self.retries += self.budget.ratio
        elif isinstance(event, Reported):
            self._report(event)
        elif isinstance(event, Started | Finished | Failed | Cancelled):
            self._hear(event)

    def _report(self, event: Reported) -> None:
        member = self.members.setdefault(event.replica, Member(event.phase, (), set()))
        member.phase = event.phase
        member.models = event.spec.models if event.spec else member.models
        if event.phase in ("starting", "gone"):
            member.blocks.clear()

    def _hear(self, event: Started | Finished | Failed | Cancelled) -> None:
        asked = self.open.get(event.request_id)
        if asked is None:
            return
        if isinstance(event, Cancelled):
            self._cancel(asked)
        elif asked.replica is None:
            return
        elif isinstance(event, Started):
            asked.started = True
        elif isinstance(event, Finished):
            del self.open[event.request_id]
        else:
            self._fail(asked, event)

    def _cancel(self, asked: Open) -> None:
        if asked.replica is None:
            del self.open[asked.request.id]
        else:
            asked.ends = Cancel

    def _fail(self, asked: Open, event: Failed) -> None:
        assert asked.replica is not None
        if event.replica_down:
            self.members[asked.replica].phase = "gone"
            self.members[asked.replica].blocks.clear()
        elsewhere = any(self._takes(model) for model in models_of(asked.request, asked.model)[1:])
        asked.replica = None
        asked.expires_s = self._expires_s(asked.request, event.now_s)
        if asked.started:
            del self.open[asked.request.id]
        elif not event.retryable or (asked.attempts == asked.allowed and not elsewhere):
            asked.ends = Refuse
        elif not self._spend(event.now_s):
            asked.ends, asked.poor = Refuse, True

    def _spend(self, now_s: float) -> bool:
        most = self.budget.reserve + self.budget.ratio * len(self.open)
        self.retries = min(most, self.retries + self.budget.floor_per_s * (now_s - self.last_retry_s))
        self.last_retry_s = now_s
        self.retries -= (allowed := self.retries >= 1)
        return allowed

    def _takes(self, model: str) -> bool:
        ready = any(m.phase == "ready" and model in m.models for m in self.members.values())
        return ready and len(self.held(model)) < self.settings.max_held

    def follow(self, controller: Controller, now_s: float) -> None:
        """Write down for which model each request is now; none turns back to one it was for before."""
        for name, flight in controller.state.flights.items():
            asked, model = self.open[name], flight.request.model
            if model != asked.model:
                assert model in models_of(asked.request, asked.model)
                asked.model, asked.allowed = model, asked.attempts + self.settings.max_attempts
                asked.expires_s = self._expires_s(asked.request, now_s)

    def perform(self, action: Action, now_s: float) -> None:
        """Write down what is to be done, if it may be done."""
        asked = self.open[action.request_id]
        assert asked.ends in (None, type(action))
        if isinstance(action, Dispatch):
            self._dispatch(asked, action, now_s)
            return
        del self.open[action.request_id]
        if isinstance(action, Cancel):
            assert asked.ends is Cancel
            assert asked.replica == action.replica
        else:
            assert isinstance(action, Refuse), "without a migration policy nobody moves"
            assert asked.replica is None
            self._refuse(asked, action, now_s)

    def _dispatch(self, asked: Open, action: Dispatch, now_s: float) -> None:
        member = self.members[action.replica]
        assert member.phase == "ready"
        assert asked.model in member.models
        assert action.model == (UNSET if asked.model == asked.request.model else asked.model)
        assert asked.replica is None
        assert not asked.started
        assert now_s <= asked.expires_s
        asked.attempts += 1
        assert action.attempt == asked.attempts <= asked.allowed
        asked.replica = action.replica
        known = sum(1 for _ in takewhile(member.blocks.__contains__, asked.request.blocks))
        asked.charged_tokens = max(0, asked.request.prompt_tokens - known * asked.request.block_tokens)
        member.blocks.update(asked.request.blocks)

    def _refuse(self, asked: Open, action: Refuse, now_s: float) -> None:
        models = models_of(asked.request, asked.model)
        match action.status:
            case 404:
                assert all(m.models and not {*models} & {*m.models} for m in self.members.values())
                self.retries -= self.budget.ratio
            case 429:
                assert any(len(self.held(model)) >= self.settings.max_held for model in models)
                assert action.retry_after_s is not None
                self.retries -= self.budget.ratio
            case 502:
                assert asked.ends is Refuse
                assert not asked.poor
            case 503:
                assert asked.poor or asked.expires_s <= now_s or "not today" in action.why
            case 504:
                assert asked.request.deadline_s is not None
                assert asked.request.deadline_s <= now_s
        assert action.retry_after_s is None or 1.0 <= action.retry_after_s <= 120.0

    def models(self) -> dict[str, str]:
        """Return for which model each request is now."""
        return {name: asked.model for name, asked in self.open.items()}

    def held(self, model: str) -> list[str]:
        """Return the requests for a model that nobody works on, in the order of their arrival."""
        return [q for q, o in self.open.items() if o.replica is None and o.model == model]

    def next_expiry_s(self) -> float | None:
        """Return when the first of the held requests expires."""
        return min((o.expires_s for o in self.open.values() if o.replica is None), default=None)

    def agree(self, controller: Controller, now_s: float) -> None:
        """Assert that the controller's books say the same."""
        state = controller.state
        assert state.flights.keys() == self.open.keys()
        assert all(asked.ends is None for asked in self.open.values())
        for model in {o.model for o in self.open.values()} | state.held.keys():
            assert list(state.held.get(model, ())) == self.held(model)
            fresh = [q for q in self.held(model) if not self.open[q].attempts]
            assert len(fresh) <= self.settings.max_held
        expiry_s = self.next_expiry_s()
        assert controller.next_deadline_s() == expiry_s
        assert expiry_s is None or expiry_s > now_s
        for replica in self.members:
            self._agree_on(controller, replica)

    def _agree_on(self, controller: Controller, replica: str) -> None:
        view, member = controller.state.replicas[replica], self.members[replica]
        here = [o for o in self.open.values() if o.replica == replica]
        waiting, running = [o for o in here if not o.started], [o for o in here if o.started]
        assert (view.phase, view.spec.models) == (member.phase, member.models)
        assert (view.waiting, view.running) == (len(waiting), len(running))
        assert view.queued_tokens == sum(o.charged_tokens for o in waiting)
        assert view.context_tokens == sum(o.request.prompt_tokens for o in running)

    def nobody_waits_for_nothing(self) -> None:
        """Assert that whoever is held has no ready replica, as policies that never hold by choice promise."""
        for asked in self.open.values():
            for member in self.members.values():
                able = member.phase == "ready" and asked.model in member.models
                assert asked.replica is not None or not able

    def _expires_s(self, request: Request, now_s: float) -> float:
        deadline_s = inf if request.deadline_s is None else request.deadline_s
        return min(now_s + self.settings.max_hold_s, deadline_s)
