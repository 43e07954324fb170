"""How one engine gives KV caches to others and takes theirs, and what it tells the world about that."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from millrace.core.replica import Role
from millrace.engine.errors import ApiError
from millrace.engine.exports import HOLD_S, Exports
from millrace.engine.generation import Generation
from millrace.engine.loop import EngineLoop
from millrace.engine.pulling import Puller
from millrace.engine.wire import KvFormat


class Transfers:
    """`address` is where others reach this engine's KV port; None if it has none."""

    def __init__(
        self,
        loop: EngineLoop,
        fingerprint: str,
        *,
        address: tuple[str, int] | None = None,
        role: Role = "both",
    ) -> None:
        shape = loop.executor.kv_shape
        self.format = KvFormat(
            fingerprint=fingerprint,
            dtype=loop.executor.dtype,
            layers=shape.layers,
            heads=shape.heads,
            head_size=shape.head_size,
            block_tokens=shape.block_tokens,
        )
        self._token_bytes = loop.executor.block_bytes / shape.block_tokens
        self.exports = Exports(loop, hold_s=HOLD_S)
        self.puller = Puller(loop, self.format)
        self._address, self._role = address, role
        self._engine_id = uuid4().hex

    @property
    def open(self) -> bool:
        """Whether others can fetch from this engine."""
        return self._address is not None

    def card(self) -> dict[str, Any]:
        """What the entry of a model in `/v1/models` says of this engine's KV caches."""
        if self._address is None:
            return {"role": self._role}
        cache = {"kv_format": self.format.fingerprint, "kv_bytes_per_token": self._token_bytes}
        return {"role": self._role, "kv_transfer": cache | self._where()}

    def check_open(self) -> None:
        """ApiError if a cache was to be kept that nobody could fetch."""
        if not self.open:
            raise ApiError(
                "kv_transfer_params: this engine was started without --kv-port", param="kv_transfer_params"
            )

    def handed(self, generation: Generation) -> dict[str, Any]:
        """What the engine that answers needs to know of a prompt that was computed here."""
        sequence = generation.sequence
        params = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": list(sequence.table),
            "remote_request_id": sequence.id,
            "remote_num_tokens": sequence.prompt_tokens,
            "tp_size": 1,
        }
        return {"kv_transfer_params": params | self._where()}

    def _where(self) -> dict[str, Any]:
        assert self._address is not None
        host, port = self._address
        return {"remote_engine_id": self._engine_id, "remote_host": host, "remote_port": port}
