"""Replicas take the roles that the objectives ask for: some compute prompts, some decode, and they change.

The prompt goes to the prefilling replica with the shortest predicted time; the answer to the first decoding
replica, by id, that is predicted to keep the time per output token, else to the one that is least late.
Where prompts wait too long and the best decoding replica has slack, it computes the prompt. If nobody keeps
the time per output token and prefilling can do without a replica, that one begins to decode; one that has
nothing to decode any more computes prompts again. At least one of each is kept.

Roles here are no state: who answers somebody decodes, whoever else has the role `both` computes prompts. That
is where the rules of the source lead, whose instances can do either at any time. So no replica has to be
told, several gateways need not agree, and a log replays it. The roles `prefill` and `decode` stay.

A time per output token is a constant, a share for each request, and one for each token of theirs, as in the
source, which fits them to profiles and counts the tokens of answers as they pass; here they are what the
replica's spec says, and answers are as long as they can be at that pace. Who is first, and objectives by
request instead of fixed ones, are inferred.

With `as_written` the source's own shortcuts hold. Since db26574 an instance that could do both and is to
decode is put back among those that compute prompts, as long as anybody decodes: so one of them decodes, for
good. A prompt's time is that of those in the queue, without its own and without caches. Milliseconds are cut
to whole ones, seats do not count, and objectives of requests neither. Not had is that who cancels after the
first token is taken from the queue twice.

Source: xllm-service (c8033e0), SLO-aware routing; the xLLM technical report (2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import ClassVar, NamedTuple

from millrace.core.draw import draw_least
from millrace.core.fleet import Decision, FleetView, Hold, ReplicaView, Route
from millrace.core.replica import Limits
from millrace.core.request import Request
from millrace.core.speeds import TYPICAL_CONTEXT_TOKENS, TYPICAL_SEQUENCES

ENGINE_DEFAULTS = Limits()
TYPICAL_TOKENS = TYPICAL_SEQUENCES * TYPICAL_CONTEXT_TOKENS


class Pools(NamedTuple):
    """Who computes prompts, and who answers; in a fleet of one it is the same replica."""

    prefilling: list[ReplicaView]
    decoding: list[ReplicaView]


class Predicted(NamedTuple):
    """A replica, and what is predicted of it in seconds."""

    replica: ReplicaView
    seconds: float


class Answering:
    """What a replica answers, or will: how many requests, and for how long those that run have run."""

    __slots__ = ("requests", "run_s")

    def __init__(self) -> None:
        self.requests = 0
        self.run_s = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """`slo_ttft_s` and `slo_tpot_s` are the objectives of requests that bring none: the source's targets.

    `assumed_tokens_per_s` is the prefill speed of replicas when none of them has a known one. A decision
    looks at every request under way.
    """

    slo_ttft_s: float = 1.0
    slo_tpot_s: float = 0.05
    assumed_tokens_per_s: float = 1000.0
    as_written: bool = False
    seed: int = 0
    splits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("slo_ttft_s", "slo_tpot_s", "assumed_tokens_per_s"):
            if not 0 < getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")

    def route(self, request: Request, fleet: FleetView) -> Decision:
        able = fleet.able(request)
        if not able:
            return Hold("no ready replica")
        if self.as_written:
            return self._as_written(request, able, fleet)
        pools = pools_of(able, fleet.prefilling(request))
        prefills = self._prefill_s(request, pools.prefilling)
        decodes = self._tpot_s(request, pools.decoding, fleet)
        prefill, best = _least(prefills, request, self.seed), _least(decodes, request, self.seed)
        slo_tpot_s = request.slo.tpot_s or self.slo_tpot_s
        decode = next((one for one in decodes if one.seconds <= slo_tpot_s), None)
        if decode is None:
            flips = prefill.replica.spec.role == "both" and self._spares(request, prefills, decodes)
            return _route(prefill.replica if flips else best.replica, prefill.replica)
        slack = best.seconds < slo_tpot_s * (len(decodes) - 1) / len(decodes)
        late = prefill.seconds > (request.slo.ttft_s or self.slo_ttft_s)
        if late and slack and best.replica is not decode.replica and best.replica.spec.role == "both":
            own = self._prefill_s(request, [best.replica])[0]
            prefill = min(prefill, own, key=_seconds)
        return _route(decode.replica, prefill.replica)

    def _as_written(self, request: Request, able: Sequence[ReplicaView], fleet: FleetView) -> Decision:
        """Choose by queues, in roles that stay, among those that come first of equals."""
        pools = registered(able, fleet.prefilling(request))
        queues = self._queues_s(fleet)
        prefill = min((Predicted(one, queues.get(one.id, 0.0)) for one in pools.prefilling), key=_seconds)
        decodes = [
            Predicted(one.replica, _whole_ms(one.seconds))
            for one in self._tpot_s(request, pools.decoding, fleet, seated=False)
        ]
        best = min(decodes, key=_seconds)
        decode = next((one for one in decodes if one.seconds <= self.slo_tpot_s), None)
        slack = best.seconds < self.slo_tpot_s * (len(decodes) - 1) / len(decodes)
        own_s = queues.get(best.replica.id, 0.0)
        if prefill.seconds > self.slo_ttft_s and best is not decode and slack and own_s < prefill.seconds:
            prefill = best
        return _route((decode or best).replica, prefill.replica)

    def _queues_s(self, fleet: FleetView) -> dict[str, float]:
        """Return how long each replica takes for the prompts in its queue, as if nothing was cached."""
        specs = {one.id: one.spec for one in fleet.replicas}
        slowest = self._slowest(fleet.replicas)
        queues: dict[str, float] = {}
        for one in fleet.flights.values():
            name = one.prefill_on or (None if one.started else one.replica)
            if name in specs:
                tokens, spec = one.request.prompt_tokens, specs[name]
                prompt_s = tokens / (spec.prefill_tokens_per_s or slowest)
                queues[name] = queues.get(name, 0.0) + prompt_s + (spec.attended_s or 0.0) * tokens**2 / 2
        return {name: _whole_ms(seconds) for name, seconds in queues.items()}

    def _spares(self, request: Request, prefills: list[Predicted], decodes: list[Predicted]) -> bool:
        """Whether those who compute prompts can do without one of them, or are the more."""
        if len(prefills) < 2:
            return False
        mean_s = sum(map(_seconds, prefills)) / len(prefills)
        slo_s = request.slo.ttft_s or self.slo_ttft_s
        return mean_s < slo_s * (len(prefills) - 1) / len(prefills) or len(decodes) < len(prefills)

    def _prefill_s(self, request: Request, replicas: Sequence[ReplicaView]) -> list[Predicted]:
        """Predict when each has computed the prompt; of unknown speed are those as slow as any."""
        slowest = self._slowest(replicas)
        return [Predicted(one, _computed_s(request, one, slowest)) for one in replicas]

    def _slowest(self, replicas: Sequence[ReplicaView]) -> float:
        speeds = [speed for one in replicas if (speed := one.spec.prefill_tokens_per_s)]
        return min(speeds, default=self.assumed_tokens_per_s)

    def _tpot_s(
        self, request: Request, replicas: Sequence[ReplicaView], fleet: FleetView, *, seated: bool = True
    ) -> list[Predicted]:
        """Predict each one's time per output token with the request; unknown steps are as long as any.

        Who has no seat left keeps no objective, unless seats do not count.
        """
        steps = [step_s for one in replicas if (step_s := one.spec.decode_step_s)]
        longest, answering = max(steps, default=inf), answering_of(fleet)
        nothing = Answering()
        predicted = []
        for one in replicas:
            full = seated and one.in_flight >= (one.spec.limits or ENGINE_DEFAULTS).sequences
            seconds = inf if full else tpot_s(request, one, answering.get(one.id, nothing), longest)
            predicted.append(Predicted(one, seconds))
        return predicted


def tpot_s(request: Request, replica: ReplicaView, answering: Answering, longest_s: float) -> float:
    """Predict a replica's time per output token with a request; an unknown step is as long as the longest.

    The tokens of answers are as many as were possible at the pace that they themselves lead to.
    """
    spec = replica.spec
    step_s, token_s = spec.decode_step_s or longest_s, spec.decode_context_s or spec.context_s or 0.0
    requests = 1 + max(answering.requests, replica.running)
    prompts = replica.context_tokens + replica.coming_tokens + request.prompt_tokens
    more_s = (spec.decode_sequence_s or 0.0) * (requests - TYPICAL_SEQUENCES)
    step_s = max(0.0, step_s + more_s + token_s * (prompts - TYPICAL_TOKENS))
    return step_s / 2 + sqrt(step_s**2 / 4 + token_s * answering.run_s)


def answering_of(fleet: FleetView) -> dict[str, Answering]:
    """Return by replica what is answered there, those requests included whose prompt is not computed yet."""
    found: dict[str, Answering] = {}
    for one in fleet.flights.values():
        if one.replica is not None:
            here = found.setdefault(one.replica, Answering())
            here.requests += 1
            if one.started:
                here.run_s += fleet.now_s - one.started_s
    return found


def pools_of(able: Sequence[ReplicaView], prefilling: Sequence[ReplicaView]) -> Pools:
    """Tell who computes prompts from who answers, at least one of each if there are two replicas.

    Both `able` and the `prefilling`, which do nothing else, are in the order of their ids.
    """
    decoding = [one for one in able if one.spec.role == "decode" or _answers(one)]
    spare = [one for one in able if one not in decoding]
    if not decoding:
        decoding.append(spare.pop(0))
    if not spare and not prefilling:
        flexible = [one for one in decoding if one.spec.role == "both"]
        spare = sorted(flexible, key=_answered)[:1] or decoding
        decoding = [one for one in decoding if one not in spare] or decoding
    return Pools([*prefilling, *spare], decoding)


def registered(able: Sequence[ReplicaView], prefilling: Sequence[ReplicaView]) -> Pools:
    """Tell the pools that the source keeps: of those that do both, one decodes if nobody else does."""
    decoding = [one for one in able if one.spec.role == "decode"] or [able[0]]
    spare = [*prefilling, *(one for one in able if one not in decoding)]
    return Pools(spare or decoding, decoding)


def _answers(replica: ReplicaView) -> bool:
    """Whether it answers, or will: prompts that it only computes for others are queued there."""
    return bool(replica.running or replica.coming_tokens or (replica.waiting and not replica.queued_tokens))


def _answered(replica: ReplicaView) -> tuple[int, int, str]:
    return replica.running, replica.coming_tokens, replica.id


def _computed_s(request: Request, replica: ReplicaView, slowest: float) -> float:
    spec, tokens = replica.spec, request.prompt_tokens
    lacking = max(1, tokens - (replica.prefix.matched_tokens(request) if request.blocks else 0))
    pairs = lacking * (tokens - 0.5 * lacking)
    own_s = (replica.queued_tokens + lacking) / (spec.prefill_tokens_per_s or slowest)
    return own_s + (spec.attended_s or 0.0) * pairs


def _least(predicted: list[Predicted], request: Request, seed: int) -> Predicted:
    """The least of all; of equals, one with the fewest requests, drawn by request."""
    ranks = [(one.seconds, one.replica.in_flight) for one in predicted]
    return predicted[draw_least(ranks, request.id, seed)]


def _seconds(one: Predicted) -> float:
    return one.seconds


def _whole_ms(seconds: float) -> float:
    return seconds if seconds == inf else int(1000 * seconds) / 1000


def _route(answering: ReplicaView, prefilling: ReplicaView) -> Route:
    if answering is prefilling:
        return Route(answering.id)
    return Route(answering.id, prefill_on=prefilling.id)
