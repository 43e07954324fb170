"""What one engine iteration costs: its shape, and models that price it from data sheets or measurements."""

from millrace.core.cost.efficiency import Efficiency, efficiency_of
from millrace.core.cost.least_squares import fit
from millrace.core.cost.linear import FitError, Linear
from millrace.core.cost.roofline import Roofline
from millrace.core.cost.shape import CostModel, StepShape

__all__ = ["CostModel", "Efficiency", "FitError", "Linear", "Roofline", "StepShape", "efficiency_of", "fit"]
