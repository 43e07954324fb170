"""Let offline requests (of a priority below 0) take what online ones leave, and give way to them at once.

Source: the co-location of online and offline requests of the xLLM technical report (arXiv:2510.14686).

Online requests are served as by `split_fuse`. Beside them offline ones go on, and begin, only as far as the
step is predicted to end in time; a step that admits an online request computes nothing offline, and takes
KV blocks and seats from offline requests if it must, youngest first: those are computed again later. The
queue is in the order of priorities, and whoever lacks a block takes it from the least important. Where
nobody can predict a step, offline requests run only while no online one does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from typing import ClassVar

from millrace.core.batch import BatchView, Grant, Plan, SequenceView
from millrace.core.cost.shape import ENDLESS, StepShape, StepTimes, later
from millrace.core.room import beside, grants, in_time, prompts, tokens_in_time

# For so many steps it is asked at once whether all decodes may go on.
HORIZON = 64


@dataclass(slots=True)
class Policy:
    """A step with offline requests in it is to take at most `tpot_s`.

    Offline prompts that are alone, and could not be computed at all in that time, get `least_tokens` a step.
    """

    tpot_s: float = 0.05
    least_tokens: int = 32
    _times: StepTimes | None = field(default=None, init=False, compare=False, repr=False)
    steady: ClassVar[bool] = True
    by_priority: ClassVar[bool] = True

    def informed(self, times: StepTimes) -> Policy:
        """Return the policy for a replica whose steps take so long."""
        found = replace(self)
        found._times = times
        return found

    def plan(self, batch: BatchView) -> Plan:
        """Grant online decodes and prompts, then offline ones as far as there is time."""
        both = _Both(batch)
        if not both.online:
            return self._alone(batch)
        given = grants(prompts(batch, both.begun, both.newcomers, both.left), both.left)
        if len(given) > len(both.begun):
            yields = [sequence.id for sequence in reversed(both.offline)]
            return both.plan(0, given, yields=yields, steps=1 if yields else ENDLESS)
        return self._beside(both, given)

    def _alone(self, batch: BatchView) -> Plan:
        """Plan for offline requests that nobody competes with: whoever comes waits for one step in time."""
        decodes = min(batch.decoding, batch.step_tokens)
        left = batch.step_tokens - decodes
        waiting = islice(batch.waiting, batch.sequences - len(batch.running))
        found = prompts(batch, batch.prefilling, waiting, left)
        if not found or not self._times:
            return Plan(decodes, grants(found, left))
        shape = StepShape(decodes, batch.context_tokens, 0, 0, 0, decodes)
        budget = tokens_in_time(self._times, shape, found, left, limit_s=self.tpot_s)
        return Plan(decodes, grants(found, min(left, max(budget, self.least_tokens))), steps=1)

    def _beside(self, both: _Both, given: list[Grant]) -> Plan:
        """Add what a step with these online prompts has time for."""
        batch = both.batch
        shape = both.shape(sum(grant.tokens for grant in given))
        left = batch.step_tokens - shape.tokens
        going = self._going(shape, both.decoding[:left])
        if going < len(both.decoding):
            return both.plan(going, given, steps=1)
        shape, left = _with(shape, both.decoding), left - going
        waiting = islice(batch.waiting, batch.sequences - len(batch.running))
        begun = [sequence for sequence in both.offline if sequence in batch.prefilling]
        found = prompts(batch, begun, waiting, left)
        tokens = tokens_in_time(self._times, shape, found, left, limit_s=self.tpot_s)
        if tokens:
            return both.plan(going, [*given, *grants(found, tokens)], steps=1)
        return both.plan(going, given, steps=self._lasting(shape) if going else ENDLESS)

    def _going(self, shape: StepShape, decoding: list[SequenceView]) -> int:
        """Return how many of the offline decodes a step has time for, first admitted first."""
        low, high = 0, len(decoding)
        while low < high:
            middle = (low + high + 1) // 2
            if in_time(self._times, _with(shape, decoding[:middle]), self.tpot_s):
                low = middle
            else:
                high = middle - 1
        return low

    def _lasting(self, shape: StepShape) -> int:
        return HORIZON if in_time(self._times, later(shape, HORIZON), self.tpot_s) else 1


class _Both:
    """Who is online, and who is not: prompts `begun` and `newcomers` are online, those `decoding` are not.

    Of the online ones `decodes` go on, which leaves `left` tokens of a step.
    """

    def __init__(self, batch: BatchView) -> None:
        self.batch = batch
        prefilling = batch.prefilling
        self.offline = [sequence for sequence in batch.running if _is_offline(sequence)]
        self.decoding = [sequence for sequence in self.offline if sequence not in prefilling]
        self.begun = [sequence for sequence in prefilling if not _is_offline(sequence)]
        seats = batch.sequences - len(batch.running) + len(self.offline)
        online = takewhile(lambda sequence: not _is_offline(sequence), batch.waiting)
        self.newcomers = list(islice(online, seats))
        self.decodes = min(batch.decoding - len(self.decoding), batch.step_tokens)
        self.left = batch.step_tokens - self.decodes

    @property
    def online(self) -> bool:
        """Whether anybody is."""
        return bool(self.newcomers) or len(self.offline) < len(self.batch.running)

    def shape(self, tokens: int) -> StepShape:
        """Return the shape of a step of the online decodes and so many tokens of the online prompts."""
        context = self.batch.context_tokens - sum(sequence.computed for sequence in self.decoding)
        shape = StepShape(self.decodes, context, 0, 0, 0, self.decodes)
        return beside(shape, prompts(self.batch, self.begun, (), tokens), tokens)

    def plan(self, going: int, given: list[Grant], *, yields: list[str] | None = None, steps: int) -> Plan:
        """Return the plan in which the first so many of the offline decodes go on beside the online ones."""
        if going == len(self.decoding):
            return Plan(self.decodes + going, given, yields or (), steps)
        prefilling = self.batch.prefilling
        online = (one for one in self.batch.running if not _is_offline(one) and one not in prefilling)
        chosen = [*islice(online, self.decodes), *self.decoding[:going]]
        return Plan(0, [*(Grant(one.id, 1) for one in chosen), *given], yields or (), steps)


def _is_offline(sequence: SequenceView) -> bool:
    return sequence.priority < 0


def _with(shape: StepShape, decoding: list[SequenceView]) -> StepShape:
    """Return the shape of the step with these decodes in it."""
    context = sum(sequence.computed for sequence in decoding)
    return StepShape(
        shape.decodes + len(decoding),
        shape.decode_context_tokens + context,
        shape.prefills,
        shape.prefill_tokens,
        shape.prefill_attended_tokens,
        shape.emits + len(decoding),
    )
