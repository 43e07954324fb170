"""An engine whose attention fails on prompts of some lengths: what a defect, or a dying machine, looks like.

python -m tests.integration.engine.failing_engine FOLDER
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from millrace.core.replica import Limits
from millrace.engine.attention import AttentionStep, SdpaAttention, Span
from millrace.engine.engine import load_engine
from millrace.engine.executor import TorchExecutor
from millrace.engine.hosting import host
from millrace.engine.settings import EngineSettings
from millrace.policies.batching.split_fuse import Policy

FAILURES: dict[int, Exception] = {
    7: RuntimeError("it broke"),
    8: MemoryError("no room"),
    9: RuntimeError("CUDA error: device-side assert triggered"),
}


class Failing(SdpaAttention):
    """Attention that raises for spans of the lengths that have a failure."""

    def plan(self, spans: Sequence[Span]) -> AttentionStep:
        for span in spans:
            if error := FAILURES.get(span.tokens):
                raise type(error)(*error.args)
        return super().plan(spans)


def main(folder: str) -> int:
    """Serve the checkpoint on a free port; return what the engine's process would exit with."""
    limits = Limits(kv_blocks=64, block_tokens=4, prefix_caching=False)
    settings = EngineSettings(model=Path(folder), served_names=("tiny",), threads=1, limits=limits)
    loaded = load_engine(settings, Policy())
    model = loaded.executor.model
    attention = Failing(loaded.executor.kv_shape, dtype=model.embedding.dtype, device="cpu")
    failing = TorchExecutor(model, kv_blocks=64, block_tokens=4, attention=attention)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return asyncio.run(host(settings, replace(loaded, executor=failing), listener))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
