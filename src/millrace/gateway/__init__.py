"""An OpenAI-compatible front for a fleet of engines: bytes in and out, decisions left to the controller."""

from millrace.gateway.server import run
from millrace.gateway.settings import GatewaySettings

__all__ = ["GatewaySettings", "run"]
