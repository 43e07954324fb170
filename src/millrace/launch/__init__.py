"""A fleet on this machine: engines and a gateway as child processes that always end with their parent."""

from millrace.launch.commands import Command, Front, engine_command, gateway_command
from millrace.launch.fleet import Fleet
from millrace.launch.process import LaunchError, Process

__all__ = ["Command", "Fleet", "Front", "LaunchError", "Process", "engine_command", "gateway_command"]
