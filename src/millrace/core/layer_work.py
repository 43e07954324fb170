"""What a transformer's layers ask of each resource of their devices, operation by operation.

Priced like the roofline: from the data sheet and the shares of it that kernels reach. Dense models with
grouped-query or multi-head attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from msgspec import Struct

from millrace.core.cost.collective import expected
from millrace.core.cost.efficiency import efficiency_of
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec
from millrace.core.overlap import Operation, Resource

_BYTES_EACH = 2  # of an activation: bf16


class Mix(Struct, frozen=True, kw_only=True):
    """A steady state: steps of so many tokens, of requests with prompts and answers of these lengths."""

    step_tokens: int
    prompt_tokens: int
    answer_tokens: int

    @property
    def decodes(self) -> float:
        """Sequences that decode in a step: as many tokens as the share of answers in all tokens."""
        return self.step_tokens * self.answer_tokens / (self.prompt_tokens + self.answer_tokens)

    @property
    def context_tokens(self) -> float:
        """Tokens that all of them together have cached, each half of its answer on average."""
        return self.decodes * (self.prompt_tokens + self.answer_tokens / 2)

    @property
    def pairs(self) -> float:
        """Pairs of tokens that the prompts in a step look at."""
        return (self.step_tokens - self.decodes) * self.prompt_tokens / 2


def layer_operations(
    model: ModelSpec,
    device: DeviceSpec,
    devices: int,
    mix: Mix,
    *,
    layers: int,
    shares: Sequence[float],
    by_operation: bool = False,
) -> list[Operation]:
    """Return the operations of `layers` layers for a step cut into nano-batches of these shares of it.

    Each passes through the layers by itself. The list is in the order of the layers, and in each of the
    nano-batches, or with `by_operation` of what they do. Raises ValueError for models with experts or latent
    attention, and for devices that have no link.
    """
    if model.experts or model.latent:
        raise ValueError(f"{model.name} has experts or latent attention; name a dense model")
    layer_of = [list(_of_one_layer(model, device, devices, mix, share)) for share in shares]
    places = [(part, place) for part, own in enumerate(layer_of) for place in range(len(own))]
    if by_operation:
        places.sort(key=itemgetter(1))
    found: list[Operation] = []
    last: dict[int, int] = {}
    for layer in range(layers):
        for part, place in places:
            name, resource, seconds = layer_of[part][place]
            before = (last[part],) if part in last else ()
            found.append(
                Operation(name=f"{name} {layer}.{part}", resource=resource, seconds=seconds, after=before)
            )
            last[part] = len(found) - 1
    return found


def _of_one_layer(
    model: ModelSpec, device: DeviceSpec, devices: int, mix: Mix, share: float
) -> Iterator[tuple[str, Resource, float]]:
    efficiency = efficiency_of(device.name)
    flops = device.flops * devices
    bandwidth = device.memory_bytes_per_s * devices
    qkv = model.hidden * model.head_dim * (model.heads + 2 * model.kv_heads)

    def product_s(weights: float) -> float:
        p = efficiency.softness
        computing: float = (2 * weights * mix.step_tokens * share / (flops * efficiency.compute)) ** p
        reading: float = (weights * model.weight_bytes_each / (bandwidth * efficiency.bandwidth)) ** p
        seconds: float = (computing + reading) ** (1 / p)
        return seconds

    cached_bytes = mix.context_tokens * model.kv_bytes_per_token / model.layers
    decode_s = cached_bytes / (bandwidth * efficiency.decode_bandwidth) * share
    prefill_s = mix.pairs * model.flops_per_pair / (flops * efficiency.prefill_compute) * share
    sent_bytes = _BYTES_EACH * model.hidden * mix.step_tokens * share
    sum_s = expected(device, efficiency, devices).all_reduce_s(sent_bytes)
    yield "qkv", "compute", product_s(qkv)
    yield "prompt attention", "compute", prefill_s
    yield "decode attention", "memory", decode_s
    yield "output", "compute", product_s(model.attention_weights - qkv)
    yield "sum of heads", "network", sum_s
    yield "mlp", "compute", product_s(3 * model.hidden * model.ffn)
    yield "sum of mlps", "network", sum_s
