"""What engines set when they are told nothing: limits by an engine's name and version, for a device.

Sources: `EngineArgs.get_batch_defaults` and `CacheConfig` of vLLM (the OpenAI server), `ServerArgs` and
`ModelRunner.init_memory_pool` of SGLang. SGLang does not mix prompts and decodes in a step by default
(`enable_mixed_chunk`), so simulate it with the batching policy `prefill_first`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from millrace.core.device import DeviceSpec
from millrace.core.replica import Limits
from millrace.core.suggest import unknown

_GIB = 2**30
# Devices with less memory than this prefill so many tokens at a time.
_SGLANG_STEPS = ((35 * _GIB, 2048), (60 * _GIB, 4096), (160 * _GIB, 8192))


def _vllm(device: DeviceSpec) -> Limits:
    large = device.memory_bytes >= 70 * _GIB and not device.name.startswith("a100")
    step_tokens, sequences = (8192, 1024) if large else (2048, 256)
    return Limits(step_tokens=step_tokens, sequences=sequences, block_tokens=16)


def _sglang(device: DeviceSpec) -> Limits:
    fitting = (tokens for below_bytes, tokens in _SGLANG_STEPS if device.memory_bytes < below_bytes)
    # SGLang allows 2,048 requests, and up to 4,096 where the KV cache is large for the context.
    return Limits(step_tokens=next(fitting, 16_384), sequences=2048, block_tokens=1)


PRESETS: Mapping[str, Callable[[DeviceSpec], Limits]] = {"vllm-0.19": _vllm, "sglang-0.5.6": _sglang}


def preset(name: str, device: DeviceSpec) -> Limits:
    """Return the limits of an engine with its own defaults on one such GPU; `kv_blocks` is not theirs to say.

    Raises ValueError for a name that is not in `PRESETS`.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name](device)
