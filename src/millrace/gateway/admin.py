"""The admin port: the gateway's own pages (metrics, health, models), apart from where clients ask.

It goes on answering while the gateway drains, and its connections keep nothing from ending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millrace.gateway.errors import Fault
from millrace.gateway.local import answer_locally
from millrace.gateway.routes import INFERENCE, path_of

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway
    from millrace.gateway.client import ClientConnection
    from millrace.gateway.request import Incoming


class Admin:
    """What answers on the admin port. `port` is where it listens, None while it does not."""

    draining = False

    def __init__(self, gateway: Gateway) -> None:
        self.settings = gateway.settings
        self.clients: set[ClientConnection] = set()
        self.port: int | None = None
        self._gateway = gateway

    def accept(self, client: ClientConnection, incoming: Incoming) -> None:
        """Answer with a page."""
        path, _ = path_of(incoming.target)
        if path in INFERENCE and incoming.fault is None:
            incoming.fault = Fault(404, "this is the admin port; models are asked on the gateway's own")
        answer_locally(self._gateway, client, incoming, path, self._gateway.id_for(incoming).encode())
