"""The admin port: the gateway's own pages (metrics, health, models), apart from where clients ask.

`POST /replicas/NAME/drain` lets an engine finish or hand over what it has; `/resume` lets it take requests
again. The port goes on answering while the gateway drains, and its connections keep nothing from ending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from millrace.gateway import errors
from millrace.gateway.errors import Fault
from millrace.gateway.health import retire
from millrace.gateway.local import answer_locally
from millrace.gateway.routes import INFERENCE, path_of

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway
    from millrace.gateway.client import ClientConnection
    from millrace.gateway.request import Incoming


REPLICAS = b"/replicas/"
ORDERS = {b"drain": True, b"resume": False}


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
        if path.startswith(REPLICAS) and incoming.fault is None:
            self._turn(client, incoming, path[len(REPLICAS) :])
            return
        if path in INFERENCE and incoming.fault is None:
            incoming.fault = Fault(404, "this is the admin port; models are asked on the gateway's own")
        answer_locally(self._gateway, client, incoming, path, self._gateway.id_for(incoming).encode())

    def _turn(self, client: ClientConnection, incoming: Incoming, path: bytes) -> None:
        """Let an engine drain, or take requests again."""
        gateway, request_id = self._gateway, self._gateway.id_for(incoming).encode()
        name, _, order = path.rpartition(b"/")
        member = gateway.fleet.members.get(unquote(name.decode("latin-1")))
        if member is None or order not in ORDERS:
            fault = Fault(404, "name a replica and what it shall do: /replicas/NAME/drain, or /resume")
        elif incoming.method != b"POST":
            fault = Fault(405, f"{path.decode('latin-1')} takes POST")
        else:
            retire(gateway, member, retired=ORDERS[order])
            client.respond(errors.whole(204, b"", b"", request_id, close=client.closing))
            return
        allow = "POST" if fault.status == 405 else ""
        client.respond(errors.answer(fault, request_id, close=client.closing, allow=allow))
