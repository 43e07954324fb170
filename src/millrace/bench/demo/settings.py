"""What the demo plays, on what."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from millrace.core.replica import Limits
from millrace.core.request import Slo

MODEL = "demo"
TRACE = "azure_conv_2023"


class DemoSettings(Struct, frozen=True, kw_only=True):
    """A slice of the Azure conversation trace on `engines` engines of one core each, under each policy.

    The slice begins at `from_s` of the trace, comes `speed` times as fast, and is played `repeats` times.
    The KV cache of an engine is too small for every shared prefix of the slice, so that it matters which
    engine sees which.
    """

    out: Path = Path("millrace-demo")
    engines: int = 3
    routing: tuple[str, ...] = ("round_robin", "prefix_affinity")
    repeats: int = 3
    requests: int = 144
    from_s: float = 600.0
    speed: float = 1.5
    seed: int = 7
    slo: Slo = Slo(ttft_s=0.5, tpot_s=0.05)
    limits: Limits = Limits(
        step_tokens=256, sequences=32, kv_blocks=320, block_tokens=16, context_tokens=2048
    )

    def __post_init__(self) -> None:
        for name in ("engines", "repeats", "requests", "speed"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not self.routing:
            raise ValueError("routing is empty; name at least one policy")
