"""The seam between deciding a step and carrying it out."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Protocol

from msgspec import Struct

from millrace.core.cost import ENDLESS, StepShape
from millrace.replica.sequence import Sequence


class Chunk(Struct, frozen=True, eq=False, gc=False):
    """Compute tokens [start, start + tokens) of a sequence; if it `emits`, sample its next token."""

    sequence: Sequence
    start: int
    tokens: int
    emits: bool


class Step(Struct, frozen=True, eq=False):
    """One iteration: the chunks to compute together, and the shape that prices them."""

    chunks: tuple[Chunk, ...]
    shape: StepShape


class Run(Struct, eq=False, gc=False):
    """Like iterations, not told apart by sequence: what one of them is, by its shape and its prefills.

    Of those that decode in lockstep, `decodes` go on and `paused` do not. If it is known what follows so many
    `alike`, it is the `closing` one: the same decodes, and all that the only prompt still lacks. The policy
    answers for `most` of them.
    """

    shape: StepShape
    decodes: int
    prefills: Many[Chunk] = ()
    paused: Many[Sequence] = ()
    closing: Run | None = None
    alike: int = 0
    most: int = ENDLESS


class StepResult(Struct, frozen=True):
    """What came of a step: the seconds it took, and which sequences sampled a token that ends them."""

    seconds: float
    ended: frozenset[str] = frozenset()


class Executor(Protocol):
    """Carries out steps: on a device, or only as a price."""

    def run(self, step: Step) -> StepResult:
        """Carry out the step."""
