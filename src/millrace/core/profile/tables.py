"""Operator times of one model on one kind of device, ready to be made into a cost model."""

from __future__ import annotations

from msgspec import Struct

from millrace.core.cost.attention_fit import AttentionFit, fit_attention
from millrace.core.cost.attention_grid import AttentionGrid, Batch
from millrace.core.cost.curve import Curve
from millrace.core.cost.operators import Experts, Operators
from millrace.core.cost.profiled import Profiled
from millrace.core.cost.skew import Skew
from millrace.core.profile.setup import Setup

_TOLERANCE = 0.01  # of a compact model's curves; their points are about as uncertain


class Tables(Struct, frozen=True, kw_only=True):
    """Seconds of all layers: `dense` by tokens, `head` by sequences, `attention` by batch.

    `experts` is a curve over the experts woken for each number of tokens; `skew` corrects attention for
    decodes of unequal length.
    """

    dense: Curve
    head: Curve
    attention: dict[Batch, float]
    experts: dict[int, Curve] | None = None
    skew: Skew | None = None

    def grid(self, setup: Setup) -> Profiled:
        """Return a cost model that uses the measurements as they are."""
        operators = self._operators(setup, self.dense, self.head)
        return Profiled(operators, AttentionGrid(self.attention, self.skew), sheet=setup.sheet)

    def fitted(self, setup: Setup) -> Profiled:
        """Return a cost model of few numbers: thinned curves, and eleven coefficients for attention."""
        dense, head = self.dense.thinned(_TOLERANCE), self.head.thinned(_TOLERANCE)
        return Profiled(self._operators(setup, dense, head), self.fit(), sheet=setup.sheet)

    def fit(self) -> AttentionFit:
        """Fit the coefficients of attention."""
        return fit_attention(self.attention, self.skew)

    def _operators(self, setup: Setup, dense: Curve, head: Curve) -> Operators:
        return Operators(
            dense=dense,
            head=head,
            experts=self._experts(setup),
            exchange=setup.exchange,
            host_s=setup.host_s,
            graph_tokens=setup.graph_tokens,
        )

    def _experts(self, setup: Setup) -> Experts | None:
        if not setup.model.experts:
            return None
        if not self.experts:
            raise ValueError(f"{setup.model.name} has experts, but their times are missing (moe.csv)")
        return Experts(
            tokens=tuple(self.experts),
            woken=tuple(self.experts.values()),
            experts=setup.model.experts,
            active=setup.model.active_experts,
            ranks=setup.tensor_parallel * setup.data_parallel,
            whole=setup.expert_parallel,
        )
