"""Recorded runs of a real engine: when each request came and got its tokens, and how the engine was set up.

The layout is that of LLMServingSim's benchmark of vLLM (casys-kaist, MIT): `requests.jsonl` and `meta.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from millrace.core.cost.operators import graph_sizes
from millrace.core.device import DeviceSpec
from millrace.core.memory import kv_blocks
from millrace.core.model import ModelSpec
from millrace.core.replica import Limits

_LARGEST_GRAPH_TOKENS = 512  # vLLM captures graphs up to twice the sequences, but no more than this
# What a profile's folder is called by the weights it was timed with, and the bytes of one.
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "fp8_e4m3": "fp8"}
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


class Served(Struct, frozen=True, kw_only=True):
    """One request as the engine served it; moments in seconds since the first arrival."""

    id: str
    prompt_tokens: int
    output_tokens: int
    arrived_s: float
    first_token_s: float
    finished_s: float

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.first_token_s - self.arrived_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per output token after the first; None for answers of one token."""
        if self.output_tokens < 2:
            return None
        return (self.finished_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def e2e_s(self) -> float:
        """Time to the whole answer."""
        return self.finished_s - self.arrived_s


class _Request(Struct, frozen=True):
    request_id: str
    input_toks: int
    output_toks: int
    arrival_time: float
    queued_ts: float
    first_token_ts: float
    last_token_ts: float


class Arguments(Struct, frozen=True):
    """What the engine was started with; None is its own default."""

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    enable_prefix_caching: bool | None = None
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    speculative_config: dict[str, Any] | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None


class Cache(Struct, frozen=True):
    """Its KV cache as it turned out."""

    num_gpu_blocks: int | None = None
    block_size: int = 16
    enable_prefix_caching: bool = True


class Hardware(Struct, frozen=True):
    """What it ran on."""

    device_name: str | None = None


class _Scheduler(Struct, frozen=True):
    async_scheduling: bool | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None


class _Compilation(Struct, frozen=True):
    cudagraph_capture_sizes: tuple[int, ...] | str | None = None  # a long list is recorded as its length


class _Model(Struct, frozen=True):
    enforce_eager: bool = False
    max_model_len: int | None = None


class Resolved(Struct, frozen=True):
    """What the engine made of its arguments."""

    scheduler_config: _Scheduler = _Scheduler()
    compilation_config: _Compilation = _Compilation()
    model_config: _Model = _Model()


class EngineRecord(Struct, frozen=True):
    """A run's `meta.json`: the engine and how it was set up. Older files lack the last three."""

    model: str
    vllm_version: str
    engine_kwargs: Arguments
    kv_cache: Cache = Cache()
    hardware: Hardware = Hardware()
    resolved_config: Resolved = Resolved()

    @property
    def ahead(self) -> bool:
        """Whether it scheduled asynchronously, which is vLLM's default since 0.14."""
        said = self.resolved_config.scheduler_config.async_scheduling
        if said is not None:
            return said
        numbers = re.findall(r"\d+", self.vllm_version)
        return tuple(map(int, numbers[:2])) >= (0, 14)

    @property
    def variant(self) -> str:
        """The name of the profile that goes with its weights and cache, like `bf16` or `fp8-kvfp8`.

        Without a word of it, a model is taken to run in bf16.
        """
        asked = self.engine_kwargs
        weights = asked.quantization or ("bfloat16" if asked.dtype == "auto" else asked.dtype)
        cache = "" if asked.kv_cache_dtype == "auto" else f"-kv{_short(asked.kv_cache_dtype)}"
        return _short(weights) + cache

    def stored(self, model: ModelSpec) -> ModelSpec:
        """Return the model with weights and cache of the width that it ran with."""
        weights, _, cache = self.variant.partition("-kv")
        weight_bytes = _BYTES.get(weights, model.weight_bytes_each)
        return replace(
            model,
            weight_bytes_each=min(weight_bytes, model.weight_bytes_each),
            kv_bytes_each=_BYTES.get(cache or weights.replace("fp8", "bf16"), model.kv_bytes_each),
        )

    @property
    def graph_tokens(self) -> tuple[int, ...]:
        """The batch sizes of its captured graphs."""
        if self.resolved_config.model_config.enforce_eager:
            return ()
        captured = self.resolved_config.compilation_config.cudagraph_capture_sizes
        if isinstance(captured, tuple):
            return captured
        return graph_sizes(min(2 * self._sequences, _LARGEST_GRAPH_TOKENS))

    def limits(self, model: ModelSpec, device: DeviceSpec) -> Limits:
        """Return its limits: as it was started with them, or found them out, or as they must have been.

        They are those of one stage's step. Raises ValueError if the record leaves out one that cannot be
        reckoned.
        """
        asked, resolved = self.engine_kwargs, self.resolved_config
        tokens = asked.max_num_batched_tokens or resolved.scheduler_config.max_num_batched_tokens
        if tokens is None:
            raise ValueError("meta.json does not say max_num_batched_tokens: add it to engine_kwargs")
        context_tokens = asked.max_model_len or resolved.model_config.max_model_len or model.context_tokens
        found = Limits(
            step_tokens=tokens,
            sequences=self._sequences,
            block_tokens=self.kv_cache.block_size,
            context_tokens=context_tokens,
            prefix_caching=self.kv_cache.enable_prefix_caching and asked.enable_prefix_caching is not False,
        )
        if self.kv_cache.num_gpu_blocks:
            # The first block that vLLM counts is a placeholder that no request ever gets.
            return replace(found, kv_blocks=self.kv_cache.num_gpu_blocks - 1)
        mine = replace(model, experts=model.experts // asked.data_parallel_size)
        tensor, stages = asked.tensor_parallel_size, asked.pipeline_parallel_size
        return replace(found, kv_blocks=kv_blocks(mine, device, tensor, found, stages))

    @property
    def _sequences(self) -> int:
        found = self.engine_kwargs.max_num_seqs or self.resolved_config.scheduler_config.max_num_seqs
        if found is None:
            raise ValueError("meta.json does not say max_num_seqs: add it to engine_kwargs")
        return found


def read_engine(text: str | bytes) -> EngineRecord:
    """Read `meta.json`. Raises ValueError, naming the field that is wrong, or what cannot be replayed."""
    try:
        found = msgspec.json.decode(text, type=EngineRecord)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{error}; it needs {', '.join(_required(EngineRecord))}") from None
    if found.engine_kwargs.speculative_config:
        raise ValueError("engine_kwargs.speculative_config: drafted tokens are not replayed; record without")
    return found


def read_requests(lines: Iterable[str]) -> list[Served]:
    """Read `requests.jsonl`, in order of arrival. Raises ValueError, naming the line that is wrong.

    Arrivals are on the clock of the client, all else on that of the engine. The request that the engine saw
    soonest after it arrived tells how far the two are apart.
    """
    decoder = msgspec.json.Decoder(_Request)
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(decoder.decode(line))
            except msgspec.MsgspecError as error:
                needed = ", ".join(_required(_Request))
                raise ValueError(f"line {number}: {error}; every line needs {needed}") from None
    if not found:
        raise ValueError("has no requests; is this the right file?")
    return _on_one_clock(found)


def _on_one_clock(requests: Sequence[_Request]) -> list[Served]:
    for each in requests:
        _check(each)
    apart_s = min(r.queued_ts - r.arrival_time for r in requests)
    began_s = min(r.arrival_time for r in requests) + apart_s
    served = [
        Served(
            id=r.request_id,
            prompt_tokens=r.input_toks,
            output_tokens=r.output_toks,
            arrived_s=r.arrival_time + apart_s - began_s,
            first_token_s=r.first_token_ts - began_s,
            finished_s=r.last_token_ts - began_s,
        )
        for r in requests
    ]
    return sorted(served, key=lambda each: each.arrived_s)


def _check(request: _Request) -> None:
    if request.input_toks < 1 or request.output_toks < 1:
        raise ValueError(
            f"{request.request_id}: input_toks and output_toks must be at least 1; drop the line"
        )
    if not request.queued_ts <= request.first_token_ts <= request.last_token_ts:
        raise ValueError(
            f"{request.request_id}: queued_ts, first_token_ts and last_token_ts must rise; take them from "
            "one clock, the engine's"
        )


def _required(kind: type[Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


def _short(dtype: str) -> str:
    return _SHORT.get(dtype, dtype)
