"""Everything an engine process is told when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from millrace.core.replica import Limits, Role

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class EngineSettings(Struct, frozen=True, kw_only=True):
    """Settings of one engine. `port` 0 takes a free one; `threads` None leaves the choice to torch.

    `served_names` are the names it answers to, the folder's own name if there are none. `dtype` auto is
    float32 on a CPU and bfloat16 elsewhere. `context_tokens` is how long a sequence may be; None means as
    long as the model allows, but no more than `limits` say. At most `waiting` sequences wait before requests
    are refused. On SIGTERM, running answers have `drain_s` to finish. `step_log` receives a line per step.
    What enters and leaves the prefix cache is published on the ZeroMQ address `kv_events`, and told again on
    `kv_replay`.
    Other engines fetch KV caches at `kv_port` (0 takes a free one; None: they cannot) of `kv_host`, or of
    `host` if that is None. `role` is what it tells a gateway that it is for.
    """

    model: Path
    host: str = "127.0.0.1"
    port: int = 8000
    served_names: tuple[str, ...] = ()
    dtype: Dtype = "auto"
    device: str = "cpu"
    threads: int | None = None
    limits: Limits = Limits()
    context_tokens: int | None = None
    waiting: int = 1024
    body_bytes: int = 16 << 20
    drain_s: float = 30.0
    step_log: Path | None = None
    kv_events: str | None = None
    kv_replay: str | None = None
    kv_host: str | None = None
    kv_port: int | None = None
    role: Role = "both"

    def __post_init__(self) -> None:
        if self.limits.adapters is not None:
            raise ValueError("this engine has no low-rank adapters: leave out the limit on them")
        if self.kv_replay is not None and self.kv_events is None:
            raise ValueError("--kv-replay tells again what --kv-events said: give both, or only the latter")

    @property
    def names(self) -> tuple[str, ...]:
        """The names it answers to, the one it calls itself first."""
        return self.served_names or (self.model.resolve().name,)
