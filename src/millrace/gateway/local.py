"""What the gateway answers itself: models, health, metrics, and everything that is not offered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from millrace import __version__
from millrace.core.fleet import Waiting
from millrace.gateway import errors
from millrace.gateway.errors import Fault, encode
from millrace.gateway.metrics import escaped
from millrace.gateway.request import Incoming
from millrace.gateway.routes import INFERENCE

if TYPE_CHECKING:
    from millrace.gateway.app import Gateway
    from millrace.gateway.client import ClientConnection

MODELS = b"/v1/models"
PIECES_A_TURN = 16

Reply = tuple[int, str, bytes]


def answer_locally(
    gateway: Gateway, client: ClientConnection, incoming: Incoming, path: bytes, request_id: bytes
) -> None:
    """Answer anything but a well-formed inference request."""
    allow = _allowed(path)
    fault, method = incoming.fault, incoming.method
    fields, body, status = b"", b"", 204
    if fault is None and method == b"OPTIONS" and (allow or path == b"*"):
        fields = b"allow: %b\r\n" % (allow or "GET, HEAD, POST, OPTIONS").encode()
    elif fault is None and path == b"/metrics" and method == b"GET":
        Page(gateway, client, request_id)
        return
    elif fault is None and method in (b"GET", b"HEAD") and allow.startswith("GET"):
        status, type_, body = _get(gateway, path)
        fields = b"content-type: %b\r\n" % type_.encode()
    else:
        fault = fault or _not_offered(incoming, path, allow)
        gateway.metrics.errors["unknown", str(fault.status)] += 1
        allow = allow if fault.status == 405 else ""
        client.respond(_cut_for(method, errors.answer(fault, request_id, close=client.closing, allow=allow)))
        return
    client.respond(_cut_for(method, errors.whole(status, fields, body, request_id, close=client.closing)))


def _cut_for(method: bytes, answer: bytes) -> bytes:
    """An answer to HEAD says how long its body would be, and has none."""
    return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else answer


def _not_offered(incoming: Incoming, path: bytes, allow: str) -> Fault:
    method, shown = incoming.method.decode(), path[:200].decode("latin-1")
    if allow:
        return Fault(405, f"{shown} does not take {method}; it takes {allow}")
    return Fault(404, f"there is no {method} {shown} here")


def _allowed(path: bytes) -> str:
    if path in INFERENCE:
        return "POST, OPTIONS"
    offered = path in _PAGES or path == b"/metrics" or path.startswith(MODELS + b"/")
    return "GET, HEAD, OPTIONS" if offered else ""


def _get(gateway: Gateway, path: bytes) -> Reply:
    page = _PAGES.get(path)
    return (
        page(gateway)
        if page is not None
        else _model(gateway, unquote(path[len(MODELS) + 1 :].decode("latin-1")))
    )


def _json(status: int, value: Any) -> Reply:
    return status, "application/json", encode(value)


def _models(gateway: Gateway) -> Reply:
    return _json(200, {"object": "list", "data": list(gateway.fleet.catalogue.values())})


def _model(gateway: Gateway, name: str) -> Reply:
    card = gateway.fleet.catalogue.get(name)
    if card is not None:
        return _json(200, card)
    message = f"the model {name[:200]!r} does not exist"
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    return _json(404, {"error": error})


def _alive(gateway: Gateway) -> Reply:
    return 200, "text/plain; charset=utf-8", b""


def _readiness(gateway: Gateway) -> Reply:
    phases = {name: member.phase for name, member in gateway.fleet.members.items()}
    reasons = ["the gateway is shutting down"] if gateway.draining else []
    if not gateway.fleet.ready:
        reasons.append("no replica is ready")
    status = 503 if reasons else 200
    return _json(status, {"ready": not reasons, "reasons": reasons, "replicas": phases})


def _version(gateway: Gateway) -> Reply:
    return _json(200, {"version": __version__})


_PAGES: dict[bytes, Callable[[Gateway], Reply]] = {
    MODELS: _models,
    b"/version": _version,
    **dict.fromkeys(
        (
            b"/health",
            b"/healthz",
            b"/livez",
            b"/liveness",
            b"/health/liveness",
            b"/health/liveliness",
            b"/ping",
        ),
        _alive,
    ),
    **dict.fromkeys((b"/readyz", b"/ready", b"/readiness", b"/health/readiness"), _readiness),
}


class Page:
    """Writes the metrics page a few lines per turn of the event loop, so that no token waits for it."""

    def __init__(self, gateway: Gateway, client: ClientConnection, request_id: bytes) -> None:
        client.current = self
        self._task = asyncio.get_running_loop().create_task(self._write(gateway, client, request_id))

    def client_gone(self) -> None:
        """Nobody reads the page."""
        self._task.cancel()

    def pause(self) -> None:
        """A page is written at once when it is complete."""

    def resume(self) -> None:
        """As before."""

    async def _write(self, gateway: Gateway, client: ClientConnection, request_id: bytes) -> None:
        pieces = []
        for number, piece in enumerate(gateway.metrics.pieces(gauges(gateway))):
            pieces.append(piece)
            if number % PIECES_A_TURN == 0:
                await asyncio.sleep(0)
        fields = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
        body = "".join(pieces).encode()
        client.respond(errors.whole(HTTPStatus.OK, fields, body, request_id, close=client.closing))


def gauges(gateway: Gateway) -> list[tuple[str, str, dict[str, float]]]:
    """Return what is true right now, as families of the metrics page."""
    fleet, now_s = gateway.fleet, gateway.now_s()
    sent = Counter(exchange.engine.id if exchange.engine else "" for exchange in gateway.exchanges.values())
    waiting = sent.pop("", 0)
    running = {f'replica="{name}"': float(sent[name]) for name in fleet.members}
    ages = {
        f'replica="{name}"': now_s - member.scraped_s
        for name, member in fleet.members.items()
        if member.scraped_s is not None
    }
    waits = {_labels(one): one for one in gateway.controller.waiting(now_s)}
    held = {labels: float(one.held) for labels, one in waits.items()}
    oldest = {labels: one.oldest_s for labels, one in waits.items()}
    remembered = {"": float(gateway.remembered_bytes)}
    held_bytes = gateway.controller.prefix_index_bytes()
    indexes = {f'replica="{name}"': float(size) for name, size in held_bytes.items()}
    return [
        ("request_running", "Requests sent to a replica and not ended", running),
        ("flow_control_queue_size", "Requests held back", {"": float(waiting)}),
        ("flow_control_held", "Requests that wait, by whose and how urgent they are", held),
        ("flow_control_oldest_wait_seconds", "Since the first of those that wait came", oldest),
        ("pool_ready_replicas", "Replicas that can be sent requests", {"": float(fleet.ready)}),
        ("scrape_age_seconds", "Since a replica last spoke of its load", ages),
        ("failover_bytes", "Memory of what streams take to go on elsewhere", remembered),
        ("prefix_index_bytes", "Memory of what is known of a replica's prefix cache", indexes),
        ("client_connections", "Open client connections", {"": float(len(gateway.clients))}),
    ]


def _labels(one: Waiting) -> str:
    return f'model="{escaped(one.model)}",priority="{one.priority}",tenant="{escaped(one.tenant)}"'
