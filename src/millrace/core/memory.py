"""How many blocks of KV cache fit beside a model, reckoned the way vLLM profiles it at start.

An engine that runs reports its own `num_gpu_blocks`: prefer that figure wherever there is one.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

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
_DEGREES = (1, 2, 4, 8, 16, 32, 64)
_MACHINE = 8  # devices that usually share fast links: layers are split over no more of them first


class _Split(Struct, frozen=True):
    """A model on these devices, each layer over `tensor` of them and the layers over `stages`."""

    model: ModelSpec
    device: DeviceSpec
    limits: Limits
    tensor: int
    stages: int

    @property
    def short_bytes(self) -> float:
        """What each device lacks for one request of full length; below 0, what is left over."""
        blocks = -(-self.limits.context_tokens // self.limits.block_tokens)
        return blocks * self.block_bytes - self.free_bytes

    @property
    def free_bytes(self) -> float:
        """What is left for the cache on a device of the stage with the most weights."""
        model, limits = self.model, self.limits
        widest = max(model.ffn, model.expert_ffn * (model.active_experts + model.shared_experts))
        token_bytes = _ACTIVATION_BYTES * (4 * model.hidden + 2 * widest / self.tensor)
        step_bytes = limits.step_tokens * token_bytes + limits.sequences * model.vocab * _LOGIT_BYTES
        usable_bytes = UTILISATION * self.device.memory_bytes - RUNTIME_BYTES
        return usable_bytes - self._weight_bytes / self.tensor - step_bytes

    @property
    def block_bytes(self) -> float:
        """What a block takes on a device of the stage with the most layers."""
        share = self._layers / self.model.layers
        return self.model.kv_bytes_per_token_each(self.tensor) * self.limits.block_tokens * share

    def wider(self) -> Iterator[_Split]:
        """Yield what would help, fewest devices first: layers over more devices of a machine, then stages."""
        most = _DEGREES[-1] if self.device.link_bytes_per_s else 1
        degrees = [n for n in _DEGREES if self.tensor < n <= most and self.model.heads % n == 0]
        yield from (replace(self, tensor=n) for n in degrees if n <= _MACHINE)
        widest = max((n for n in degrees if n <= _MACHINE), default=self.tensor)
        stages = [n for n in _DEGREES if self.stages < n <= min(most, self.model.layers)]
        yield from (replace(self, tensor=widest, stages=n) for n in stages)

    def __str__(self) -> str:
        return f"tp={self.tensor}" + (f" pp={self.stages}" if self.stages > 1 else "")

    @property
    def _layers(self) -> int:
        return -(-self.model.layers // self.stages)

    @property
    def _weight_bytes(self) -> float:
        """The first stage has the embedding and the last one the head; each is one of the two at most."""
        if self.stages == 1:
            return self.model.weight_bytes
        head_bytes = self.model.head_weights * self.model.weight_bytes_each
        outside_bytes = head_bytes * (1 if self.model.tied_embeddings else 2)
        inside_bytes = self.model.weight_bytes - outside_bytes
        return inside_bytes * self._layers / self.model.layers + head_bytes


def kv_blocks(
    model: ModelSpec, device: DeviceSpec, tensor_parallel: int, limits: Limits, pipeline_parallel: int = 1
) -> int:
    """Return how many blocks of `limits.block_tokens` tokens fit on each device.

    Raises ValueError if not even one request of `limits.context_tokens` does; it says what would help.
    """
    split = _Split(model, device, limits, tensor_parallel, pipeline_parallel)
    if split.short_bytes > 0:
        fitting = next((wider for wider in split.wider() if wider.short_bytes <= 0), None)
        fix = f"{fitting} fits" if fitting else "no tp makes it fit, so take devices with more memory"
        raise ValueError(
            f"{model.name} does not fit on {tensor_parallel * pipeline_parallel}x {device.name}: each device "
            f"is short by {split.short_bytes / _GIB:.1f} GiB for weights, activations and one request of "
            f"{limits.context_tokens} tokens; {fix}"
        )
    return int(split.free_bytes // split.block_bytes)
