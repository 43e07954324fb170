"""What was predicted of the first tokens in a log, and when they came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET, Struct

from millrace.control.hindsight.inquiry import ASSUMED_TOKENS_PER_S
from millrace.control.log import Entry, Recording, Retelling
from millrace.core.event import Cancelled, Dispatch, Event, Failed, Finished, Started
from millrace.core.explanation import reasons
from millrace.core.fleet import Decision, FleetView, Route, Sent
from millrace.core.forecast import Forecast
from millrace.core.request import Request
from millrace.core.stats import mean, percentile
from millrace.policies import Described, rebuild

EVERYBODY = "all"


class Errors(Struct, frozen=True, kw_only=True):
    """How far predictions were off, in seconds. `bias_s` is above 0 if first tokens came later than said.

    `replica` is "all" for the last row, of all of them.
    """

    replica: str
    requests: int
    actual_s: float
    predicted_s: float
    bias_s: float
    absolute_s: float
    p50_s: float
    p90_s: float


class Report(Struct, frozen=True, kw_only=True):
    """Errors by replica: of what the log's policy predicts, if it does, and of the project's forecast.

    `scored` predictions were on record; the policy was asked for the others when the log was told again.
    """

    policy: Described
    by_policy: tuple[Errors, ...]
    by_forecast: tuple[Errors, ...]
    scored: int
    first_difference: int | None = None
    cut_off: bool = False


class Prediction(Struct):
    """What is foreseen of a request that was just sent."""

    replica: str
    now_s: float
    foreseen_s: float
    own_s: float | None


class Sample(NamedTuple):
    """One prediction that came to its test."""

    replica: str
    predicted_s: float
    actual_s: float


class Prophet:
    """Predicts every first token, and sees when it comes.

    A request that fails, is cancelled or moves before that is left out, and so is one whose prompt is
    computed elsewhere.
    """

    def __init__(self, policy: Any) -> None:
        self.own: list[Sample] = []
        self.foreseen: list[Sample] = []
        self.open: dict[str, Prediction] = {}
        self._policy = policy
        self._forecast = Forecast(ASSUMED_TOKENS_PER_S)
        self._learn = getattr(policy, "note", None)

    def note(self, fact: Event | Sent) -> None:
        """See what came of a prediction, and learn."""
        if isinstance(fact, Started):
            self._close(fact)
        elif isinstance(fact, Finished | Failed | Cancelled):
            self.open.pop(fact.request_id, None)
        elif isinstance(fact, Sent) and fact.moved:
            self.open.pop(fact.request.id, None)
        self._forecast.note(fact)
        if self._learn is not None:
            self._learn(fact)

    def decided(self, request: Request, fleet: FleetView, decision: Decision) -> None:
        """Predict, if the request is sent."""
        if not isinstance(decision, Route) or decision.prefill_on is not None:
            return
        [replica] = [one for one in fleet.replicas if one.id == decision.replica]
        [foreseen_s] = self._forecast.first_tokens_s(request, [replica], fleet.now_s)
        own_s = reasons(self._policy, request, fleet, "").ttft_s(replica.id)
        self.open[request.id] = Prediction(replica.id, fleet.now_s, foreseen_s, own_s)

    def read(self, recorded: Entry) -> int:
        """Prefer what is on record of an entry to what was asked now; return how many there are."""
        scored = 0
        for action in recorded.actions:
            if isinstance(action, Dispatch) and action.reasons is not UNSET:
                own_s, made = action.reasons.ttft_s(action.replica), self.open.get(action.request_id)
                if own_s is not None and made is not None:
                    made.own_s, scored = own_s, scored + 1
        return scored

    def _close(self, started: Started) -> None:
        made = self.open.pop(started.request_id, None)
        if made is None:
            return
        actual_s = started.now_s - made.now_s
        self.foreseen.append(Sample(made.replica, made.foreseen_s, actual_s))
        if made.own_s is not None:
            self.own.append(Sample(made.replica, made.own_s, actual_s))


def report(lines: Iterable[bytes]) -> Report:
    """Tell a log again and hold every prediction against what happened. Raises what reading a log does."""
    recording = Recording(lines)
    prophet = Prophet(rebuild("routing", recording.header.routing))
    told = Retelling(recording, prophet)
    scored = sum(prophet.read(recorded) for recorded, _ in told)
    return Report(
        policy=recording.header.routing,
        by_policy=errors(prophet.own),
        by_forecast=errors(prophet.foreseen),
        scored=scored,
        first_difference=told.first_difference,
        cut_off=recording.cut_off,
    )


def errors(samples: Sequence[Sample]) -> tuple[Errors, ...]:
    """Return the errors of each replica, and of all of them; nothing of no samples."""
    names = sorted({sample.replica for sample in samples})
    groups = [(name, [sample for sample in samples if sample.replica == name]) for name in names]
    return tuple(_errors(name, group) for name, group in [*groups, (EVERYBODY, list(samples))] if group)


def _errors(name: str, samples: Sequence[Sample]) -> Errors:
    off_s = [sample.actual_s - sample.predicted_s for sample in samples]
    absolute_s = [abs(one_s) for one_s in off_s]
    return Errors(
        replica=name,
        requests=len(samples),
        actual_s=mean(sample.actual_s for sample in samples),
        predicted_s=mean(sample.predicted_s for sample in samples),
        bias_s=mean(off_s),
        absolute_s=mean(absolute_s),
        p50_s=percentile(absolute_s, 50),
        p90_s=percentile(absolute_s, 90),
    )
