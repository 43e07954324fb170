"""The mind of a fleet: events in, actions out. Pure: no IO, no clock, no async.

The gateway feeds it what happened and performs what it answers; so does the simulator.
"""

from millrace.control.budget import RetryBudget
from millrace.control.controller import Controller
from millrace.control.queue_settings import Band, QueueSettings, Saturation
from millrace.control.settings import ControlSettings

__all__ = ["Band", "ControlSettings", "Controller", "QueueSettings", "RetryBudget", "Saturation"]
