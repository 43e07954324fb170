"""An OpenAI-compatible front for a fleet of engines: bytes in and out, decisions left to the controller."""

from millrace.gateway.guarding import Guarding
from millrace.gateway.listening import AddressError, require_free
from millrace.gateway.server import run
from millrace.gateway.settings import GatewaySettings
from millrace.gateway.shadows import Shadows
from millrace.gateway.tokens import Tokenizer
from millrace.gateway.wording import Wording

__all__ = [
    "AddressError",
    "GatewaySettings",
    "Guarding",
    "Shadows",
    "Tokenizer",
    "Wording",
    "require_free",
    "run",
]
