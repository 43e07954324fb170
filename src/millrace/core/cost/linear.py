"""A step priced by coefficients that were fitted to measurements of one engine on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import msgspec
from msgspec import Struct

from millrace.core.cost.shape import ENDLESS, Line, StepShape

SCHEMA = "millrace.linear/1"


class FitError(Struct, frozen=True, kw_only=True):
    """How far a fit was off on steps it had not seen: absolute errors relative to the measured time."""

    mean: float
    p95: float
    fitted: int
    held_out: int


class Linear(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices a step as a sum: seconds for the step, and for each of the things it has to do.

    `per_context_s` is for a token of KV cache that a decode reads, `per_attended_s` for a pair of prompt
    tokens, `batch_s` for a step of more than one token: a matrix times a vector is quicker than the first
    token of a product of two matrices. `power_w` is drawn while a step runs; None is unknown.
    """

    base_s: float
    per_token_s: float = 0.0
    per_decode_s: float = 0.0
    per_context_s: float = 0.0
    per_prefill_s: float = 0.0
    per_attended_s: float = 0.0
    per_emit_s: float = 0.0
    batch_s: float = 0.0
    power_w: float | None = None
    error: FitError | None = None
    source: str | None = None

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes; an empty one takes none."""
        tokens = shape.decodes + shape.prefill_tokens
        if not tokens:
            return 0.0
        return (
            self.base_s
            + tokens * self.per_token_s
            + shape.decodes * self.per_decode_s
            + shape.decode_context_tokens * self.per_context_s
            + shape.prefills * self.per_prefill_s
            + shape.prefill_attended_tokens * self.per_attended_s
            + shape.emits * self.per_emit_s
            + (tokens > 1) * self.batch_s
        )

    def line(self, shape: StepShape) -> Line:
        """Return the line on which the prices from `shape` on lie: it never bends."""
        gain_s = shape.decodes * self.per_context_s + shape.prefill_tokens**2 * self.per_attended_s
        return self.step_s(shape), gain_s, ENDLESS

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws; NaN if the power is not known."""
        return nan if self.power_w is None else self.power_w * self.step_s(shape)

    @property
    def expected_error(self) -> str:
        """How far off the fit was on steps it had not seen, in words."""
        if self.error is None:
            return "not measured"
        return (
            f"mean {self.error.mean:.1%}, 95th percentile {self.error.p95:.1%} of {self.error.held_out} steps"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what a calibration file holds."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return {"schema": SCHEMA} | fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Linear:
        """Read what a calibration file holds. Raises ValueError, naming the field that is wrong."""
        if fields.get("schema") != SCHEMA:
            raise ValueError(f"schema is {fields.get('schema')!r}; it must be {SCHEMA!r}")
        try:
            linear = msgspec.convert({k: v for k, v in fields.items() if k != "schema"}, cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"calibration: {error}; correct the field or calibrate again") from None
        for name in (*COEFFICIENTS, "power_w"):
            if (getattr(linear, name) or 0.0) < 0:
                raise ValueError(f"{name} is {getattr(linear, name)}; it must not be negative")
        return linear


COEFFICIENTS = tuple(name for name in Linear.__struct_fields__ if name.endswith("_s"))
