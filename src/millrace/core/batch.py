"""What a batching policy may know of one replica between two iterations, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from millrace.core.cost.shape import ENDLESS, StepTimes


class SequenceView(Protocol):
    """One request inside a replica, read-only: of `length` known tokens `computed` are in the KV cache."""

    @property
    def id(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def computed(self) -> int: ...
    @property
    def generated(self) -> int:
        """Tokens sampled so far."""

    @property
    def missing(self) -> int:
        """Tokens still to compute before the next one can be sampled; 1 for a sequence that decodes."""

    @property
    def priority(self) -> int:
        """Greater is more important; below 0 is offline work, which nobody waits for."""


class BatchView(Protocol):
    """A replica between two iterations: who runs, who waits (first come first), what one step may hold."""

    @property
    def step_tokens(self) -> int: ...
    @property
    def sequences(self) -> int: ...
    @property
    def running(self) -> Collection[SequenceView]:
        """Everybody who holds KV blocks, in the order of their admission: those below, and the decodes."""

    @property
    def decoding(self) -> int:
        """How many of them decode: they have generated, and need one token each to go on."""

    @property
    def context_tokens(self) -> int:
        """Tokens that the decodes have in the KV cache, all together."""

    @property
    def prefilling(self) -> Collection[SequenceView]:
        """Those whose prompt has been begun, or who compute again what they lost."""

    @property
    def waiting(self) -> Collection[SequenceView]:
        """Nobody, as long as nobody could be admitted. By priority if the policy is `by_priority`."""

    def missing_tokens(self, sequence: SequenceView) -> int:
        """Tokens to compute if the sequence were admitted now: its length less what the cache holds."""


class Grant(Struct, frozen=True, gc=False):
    """Compute up to `tokens` tokens of this sequence in the coming step; a waiting one is admitted by it."""

    id: str
    tokens: int


class Plan(Struct, frozen=True, gc=False):
    """What the coming step computes: one token for each of the `decodes` decodes that were admitted first,
    and the grants, most important first. A grant may also be for one of the other decodes.

    Those in `yields` run, but not in this step: they lose their KV blocks, the first of them first, as far as
    somebody who waits and has a grant lacks room or a seat. A policy that promises to be steady does so for
    `steps` steps of this plan.
    """

    decodes: int = 0
    grants: Sequence[Grant] = ()
    yields: Sequence[str] = ()
    steps: int = ENDLESS


class BatchingPolicy(Protocol):
    """What does one iteration compute?

    A policy whose plan stays the same while nobody comes or leaves, except that decodes go on and a prompt
    that fills the step gets shorter, says so with a class attribute `steady = True`: a simulator then
    jumps over such iterations, at least over those in which all decodes or none go on.

    One that is `eager = True` too gives all that a step holds: whoever waits changes no plan that fills the
    step with a prompt already begun, nor one for decodes only while all seats are taken. As long as nobody
    waits, the only prompt there is gets at the end what it still lacks, beside the same decodes; and all
    decodes go on when there is no prompt.

    One that is `by_priority = True` finds who waits in the order of their priorities, first come first among
    equals, and in its replicas whoever is preempted for lack of room is of the lowest priority there. For
    all others priorities make no difference.

    One with a method `informed(times)` is asked by it for its like that knows what steps take on a replica.
    """

    def plan(self, batch: BatchView) -> Plan:
        """Return a plan within `step_tokens` and `sequences`; change nothing."""


def informed(policy: BatchingPolicy, times: StepTimes) -> BatchingPolicy:
    """Return the policy for one replica, with a prediction of what its steps take if it wants one."""
    inform: Callable[[StepTimes], BatchingPolicy] | None = getattr(policy, "informed", None)
    return inform(times) if inform else policy
