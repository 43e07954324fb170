"""A replica: one running copy of a model on one or more devices, as bought and as it reports itself."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Phase = Literal["starting", "ready", "draining", "gone"]
Role = Literal["both", "prefill", "decode", "encode"]


class Limits(Struct, frozen=True, kw_only=True):
    """An engine's own knobs: what one iteration and its memory may hold.

    `step_tokens` is vLLM's `max_num_batched_tokens`, `sequences` its `max_num_seqs`. `adapters` are how many
    low-rank adapters are on the device at a time (`max_loras`); None does not limit them.
    """

    step_tokens: int = 512
    sequences: int = 256
    kv_blocks: int = 4096
    block_tokens: int = 16
    context_tokens: int = 8192
    prefix_caching: bool = True
    adapters: int | None = None


class ReplicaSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was bought and how it is set up. Unknown is None, never 0.

    `models` are the names it answers to. It takes `tensor_parallel` times `pipeline_parallel` devices;
    `expert_parallel` is over how many of them, or of its peers' too, the experts of a layer are spread. The
    speeds are predictions made when the fleet was described (from a cost model or a calibration); policies
    that need one and find None must be cautious. A step of a prompt takes `attended_s` longer for each pair
    of a new token and one before it, and any step takes `context_s` longer for each cached token of the
    requests that run. `adapter_load_s` is how long a step waits for an adapter that is not on the device.
    KV caches move between replicas of one `kv_format`, `kv_bytes_per_token` of them.

    `decode_step_s` is a step of a moderately loaded server (`core.speeds`). From there a step that only
    decodes grows by `decode_sequence_s` for each request in it and `decode_context_s` for each cached token.
    """

    models: tuple[str, ...]
    device: str | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    role: Role = "both"
    limits: Limits | None = None
    prefill_tokens_per_s: float | None = None
    decode_step_s: float | None = None
    price_per_h: float | None = None
    adapter_load_s: float | None = None
    attended_s: float | None = None
    context_s: float | None = None
    kv_format: str | None = None
    kv_bytes_per_token: float | None = None
    decode_sequence_s: float | None = None
    decode_context_s: float | None = None


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an engine last said of itself (vLLM's gauges); None is what it did not say."""

    now_s: float
    running: int | None = None
    waiting: int | None = None
    kv_free_tokens: int | None = None
    power_w: float | None = None
    adapters: tuple[str, ...] | None = None
