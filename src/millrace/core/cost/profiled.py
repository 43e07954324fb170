"""A step priced from measured operators, and attention that was measured on a grid or fitted to one."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any, Protocol

import msgspec

from millrace.core.cost.attention_fit import AttentionFit
from millrace.core.cost.operators import Operators
from millrace.core.cost.roofline import Roofline
from millrace.core.cost.shape import StepShape

SCHEMA = "millrace.profile/1"


class Attention(Protocol):
    """What attention takes in all layers of a step."""

    @property
    def needs_lengths(self) -> bool: ...
    @property
    def expected_error(self) -> str: ...
    def attention_s(self, shape: StepShape) -> float: ...
    def straight(self, shape: StepShape, following: StepShape) -> int: ...


class Profiled:
    """Prices the steps of one replica by what its engine's kernels were timed at.

    `attention` is an `AttentionGrid` (measured points, straight lines between) or an `AttentionFit`.
    `sheet` knows the power and the price of the devices; without it both are unknown.
    """

    def __init__(self, operators: Operators, attention: Attention, *, sheet: Roofline | None = None) -> None:
        self.operators = operators
        self.attention = attention
        self.sheet = sheet

    @property
    def needs_lengths(self) -> bool:
        """Whether the price depends on the longest and the shortest decode."""
        return self.attention.needs_lengths

    @property
    def expected_error(self) -> str:
        """How far off the attention of a step is expected to be, in words; the rest was measured."""
        return self.attention.expected_error

    @property
    def price_per_h(self) -> float | None:
        """Dollars an hour for all devices; None where it is not known."""
        return self.sheet.price_per_h if self.sheet else None

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes; an empty one takes none."""
        return self.own_s(shape) + self.operators.experts_s(shape.decodes + shape.prefill_tokens)

    def own_s(self, shape: StepShape) -> float:
        """The same without the experts, which ranks may share."""
        if not shape.decodes and not shape.prefill_tokens:
            return 0.0
        rest_s = self.operators.own_s(shape.decodes, shape.prefills, shape.prefill_tokens)
        return rest_s + self.attention.attention_s(shape)

    def experts_s(self, tokens: int) -> float:
        """Seconds of the experts for the tokens of all ranks that share them."""
        return self.operators.experts_s(tokens)

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws on all devices; NaN where the power is not known."""
        seconds = self.step_s(shape)
        return self.sheet.power_w(shape, seconds) * seconds if self.sheet else nan

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        """Joules a rank draws in an iteration so long, if all ranks have `tokens`; NaN if not known."""
        return self.sheet.rank_j(shape, tokens, seconds) if self.sheet else nan

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations from `shape` on, then `following`, rise by equal amounts, at least 1."""
        return self.attention.straight(shape, following)

    def to_dict(self) -> dict[str, Any]:
        """Return what a file of this profile holds. Raises ValueError for a grid: fit its attention first."""
        if not isinstance(self.attention, AttentionFit):
            raise ValueError("a measured grid is not written to one file; fit its attention first")
        return {
            "schema": SCHEMA,
            "operators": msgspec.to_builtins(self.operators),
            "attention": msgspec.to_builtins(self.attention),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], *, sheet: Roofline | None = None) -> Profiled:
        """Read what a file of a profile holds. Raises ValueError, naming the field that is wrong."""
        if fields.get("schema") != SCHEMA:
            raise ValueError(f"schema is {fields.get('schema')!r}; it must be {SCHEMA!r}")
        try:
            operators = msgspec.convert(fields.get("operators"), Operators)
            attention = msgspec.convert(fields.get("attention"), AttentionFit)
        except msgspec.ValidationError as error:
            raise ValueError(f"profile: {error}; correct the field or fit it again") from None
        return cls(operators, attention, sheet=sheet)
