"""What one engine iteration costs: its shape, and models that price it from data sheets or measurements."""

from millrace.core.cost.attention_fit import AttentionFit, fit_attention
from millrace.core.cost.attention_grid import AttentionGrid
from millrace.core.cost.collective import Collective, fit_collective
from millrace.core.cost.curve import Curve
from millrace.core.cost.efficiency import Efficiency, efficiency_of
from millrace.core.cost.least_squares import fit
from millrace.core.cost.linear import FitError, Linear
from millrace.core.cost.operators import Experts, Operators
from millrace.core.cost.profiled import Profiled
from millrace.core.cost.roofline import Roofline
from millrace.core.cost.shape import (
    ENDLESS,
    BentCost,
    CostModel,
    Line,
    LinearCost,
    SharedCost,
    StepShape,
    StepTimes,
    line_of,
)
from millrace.core.cost.skew import Bins, Skew

__all__ = [
    "ENDLESS",
    "AttentionFit",
    "AttentionGrid",
    "BentCost",
    "Bins",
    "Collective",
    "CostModel",
    "Curve",
    "Efficiency",
    "Experts",
    "FitError",
    "Line",
    "Linear",
    "LinearCost",
    "Operators",
    "Profiled",
    "Roofline",
    "SharedCost",
    "Skew",
    "StepShape",
    "StepTimes",
    "efficiency_of",
    "fit",
    "fit_attention",
    "fit_collective",
    "line_of",
]
