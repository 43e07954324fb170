"""How many blocks of KV cache fit beside a model, reckoned the way vLLM profiles it at start.

An engine that runs reports its own `num_gpu_blocks`: prefer that figure wherever there is one.
"""

from __future__ import annotations

from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec
from millrace.core.replica import Limits

# vLLM's `gpu_memory_utilization`.
UTILISATION = 0.9
# Context, workspaces and captured graphs. With it the reckoning gives 2,581 blocks for Llama-3.1-8B on an
# RTX 4090 (256 sequences, 2,048 tokens a step) where vLLM 0.19 reported 2,588.
RUNTIME_BYTES = 0.75 * 2**30
# bf16 activations of the widest moment of a step, and fp32 logits with the sampler's copy.
_ACTIVATION_BYTES = 2
_LOGIT_BYTES = 8
_GIB = 2**30


def kv_blocks(model: ModelSpec, device: DeviceSpec, tensor_parallel: int, limits: Limits) -> int:
    """Return how many blocks of `limits.block_tokens` tokens fit on each device.

    Raises ValueError if not even one request of `limits.context_tokens` does; it says what would help.
    """
    short_bytes = _short_bytes(model, device, tensor_parallel, limits)
    if short_bytes > 0:
        most = 64 if device.link_bytes_per_s else 1
        wider = (n for n in (2, 4, 8, 16, 32, 64) if tensor_parallel < n <= most and model.heads % n == 0)
        fitting = next((n for n in wider if _short_bytes(model, device, n, limits) <= 0), None)
        fix = f"tp={fitting} fits" if fitting else "no tp makes it fit, so take devices with more memory"
        raise ValueError(
            f"{model.name} does not fit on {tensor_parallel}x {device.name}: each device is short by "
            f"{short_bytes / _GIB:.1f} GiB for weights, activations and one request of "
            f"{limits.context_tokens} tokens; {fix}"
        )
    return int(
        _free_bytes(model, device, tensor_parallel, limits) // _block_bytes(model, tensor_parallel, limits)
    )


def _short_bytes(model: ModelSpec, device: DeviceSpec, tensor_parallel: int, limits: Limits) -> float:
    blocks = -(-limits.context_tokens // limits.block_tokens)
    needed_bytes = blocks * _block_bytes(model, tensor_parallel, limits)
    return needed_bytes - _free_bytes(model, device, tensor_parallel, limits)


def _free_bytes(model: ModelSpec, device: DeviceSpec, tensor_parallel: int, limits: Limits) -> float:
    widest = max(model.ffn, model.expert_ffn * (model.active_experts + model.shared_experts))
    token_bytes = _ACTIVATION_BYTES * (4 * model.hidden + 2 * widest / tensor_parallel)
    step_bytes = limits.step_tokens * token_bytes + limits.sequences * model.vocab * _LOGIT_BYTES
    usable_bytes = UTILISATION * device.memory_bytes - RUNTIME_BYTES
    return usable_bytes - model.weight_bytes / tensor_parallel - step_bytes


def _block_bytes(model: ModelSpec, tensor_parallel: int, limits: Limits) -> float:
    return model.kv_bytes_per_token_each(tensor_parallel) * limits.block_tokens
