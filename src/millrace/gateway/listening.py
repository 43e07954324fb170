"""The addresses a gateway listens on: taken, or refused in words that name the setting to change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from millrace.gateway.settings import GatewaySettings

BACKLOG = 4096

Protocols = Callable[[], asyncio.Protocol]


class AddressError(ValueError):
    """An address that cannot be listened on; `setting` is the port's: "port" or "admin-port"."""

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


async def listen(protocols: Protocols, host: str, port: int, *, setting: str) -> asyncio.Server:
    """Return a server at this address. Raises AddressError."""
    try:
        return await asyncio.get_running_loop().create_server(protocols, host, port, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number) if number and number > 0 else error
        raise AddressError(f"cannot listen on {address(host, port)}: {why}", setting) from None


def port_of(server: asyncio.Server) -> int:
    """Return the port that a server got."""
    port: int = server.sockets[0].getsockname()[1]
    return port


def address(host: str, port: int) -> str:
    """Return what stands for this address in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def require_free(settings: GatewaySettings) -> None:
    """Check that a gateway could listen, before anything is started for it. Raises AddressError."""
    asyncio.run(_try(settings))


async def _try(settings: GatewaySettings) -> None:
    places = [(settings.host, settings.port, "port")]
    if settings.admin_port is not None:
        places.append((settings.admin_host, settings.admin_port, "admin-port"))
    servers: list[asyncio.Server] = []
    try:
        for host, port, setting in places:
            servers.append(await listen(asyncio.Protocol, host, port, setting=setting))
    finally:
        for server in servers:
            server.close()
