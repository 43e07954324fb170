"""The seam between deciding a step and carrying it out."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.cost import StepShape
from millrace.replica.sequence import Sequence


class Chunk(Struct, frozen=True, eq=False):
    """Compute tokens [start, start + tokens) of a sequence; if it `emits`, sample its next token."""

    sequence: Sequence
    start: int
    tokens: int
    emits: bool


class Step(Struct, frozen=True, eq=False):
    """One iteration: the chunks to compute together, and the shape that prices them."""

    chunks: tuple[Chunk, ...]
    shape: StepShape

    @property
    def following(self) -> StepShape:
        """The shape of the iteration after this one, if it does the same."""
        shape = self.shape
        longer = int(shape.decode_longest_tokens > 0)
        further = sum(c.tokens * c.tokens for c in self.chunks if not c.emits) if shape.prefills else 0
        return replace(
            shape,
            decode_context_tokens=shape.decode_context_tokens + shape.decodes,
            prefill_attended_tokens=shape.prefill_attended_tokens + further,
            decode_longest_tokens=shape.decode_longest_tokens + longer,
            decode_shortest_tokens=shape.decode_shortest_tokens + longer,
        )


class StepResult(Struct, frozen=True):
    """What came of a step: the seconds it took, and which sequences sampled a token that ends them."""

    seconds: float
    ended: frozenset[str] = frozenset()


class Executor(Protocol):
    """Carries out steps: on a device, or only as a price."""

    def run(self, step: Step) -> StepResult:
        """Carry out the step."""
