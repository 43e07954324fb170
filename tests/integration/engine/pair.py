"""Two engine processes that can take KV caches from each other, and streams that tests read bit by bit."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.engine.process import MODEL, Engine, serving

MORE = ("--kv-port", "0")


@contextmanager
def pair(folder: Path, *options: str) -> Iterator[tuple[Engine, Engine]]:
    """Start two engines with KV ports."""
    with serving(folder, *MORE, *options) as one, serving(folder, *MORE, *options) as other:
        yield one, other


def kv_address(engine: Engine) -> dict[str, Any]:
    """Where others reach an engine's KV port, as its models say."""
    card = json.loads(engine.get("/v1/models"))["data"][0]["kv_transfer"]
    return {name: card[name] for name in ("remote_engine_id", "remote_host", "remote_port")}


def move(source: Engine, request_id: str) -> dict[str, Any]:
    """The field that lets an answer go on which is under way at another engine."""
    params = {"do_remote_move": True, "remote_request_id": request_id}
    return {"kv_transfer_params": params | kv_address(source)}


class Stream:
    """A streamed answer, event by event."""

    def __init__(self, engine: Engine, path: str, body: dict[str, Any], request_id: str = "r") -> None:
        self._connection = http.client.HTTPConnection(engine.url.removeprefix("http://"), timeout=30)
        whole = {"model": MODEL, "stream": True} | body
        self._connection.request("POST", path, json.dumps(whole), {"x-request-id": request_id})
        self._response = self._connection.getresponse()
        self.status = self._response.status

    def data(self) -> Iterator[str]:
        """The data of each event, as they come."""
        for line in self._response:
            if line.startswith(b"data: "):
                yield line[6:].decode().strip()

    def rest(self) -> list[str]:
        """All that still comes."""
        try:
            return list(self.data())
        finally:
            self.leave()

    def body(self) -> Any:
        """The JSON of an answer that is no stream."""
        try:
            return json.load(self._response)
        finally:
            self.leave()

    def leave(self) -> None:
        """Drop the connection."""
        self._response.close()
        self._connection.close()


def texts(events: list[str]) -> str:
    """The text that events bring."""
    choices = [json.loads(event)["choices"] for event in events if event != "[DONE]"]
    return "".join(
        one[0]["text"] if "text" in one[0] else one[0]["delta"].get("content", "") for one in choices if one
    )
