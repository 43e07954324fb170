"""Workloads that are like a recorded one: fitted to a trace, then made at any length from a seed.

The parts are those that BurstGPT measured (Wang et al., arXiv:2401.17644): burstiness by period, lengths of
prompts and answers that depend on each other, turns of conversations, failures.
"""

from millrace.core.synthetic.arrivals import Burst, Period, variation_of
from millrace.core.synthetic.conversations import Turns
from millrace.core.synthetic.lengths import Lengths, Stratum
from millrace.core.synthetic.likeness import distance
from millrace.core.synthetic.sessions import find_sessions
from millrace.core.synthetic.workload import Workload, fit_workload, generate

__all__ = [
    "Burst",
    "Lengths",
    "Period",
    "Stratum",
    "Turns",
    "Workload",
    "distance",
    "find_sessions",
    "fit_workload",
    "generate",
    "variation_of",
]
