"""A step priced from a model's shape and a device's data sheet: where there is no measurement, or not yet.

Everything a step does is in it: matrix products, attention, LM head and sampler, small kernels, all-reduces
of tensor parallelism, experts woken, and the host. The functional forms and their errors are those of
`core.cost.efficiency`; for a fixed composition of the batch the price is affine in the tokens attended to.
"""

from __future__ import annotations

from math import nan

from millrace.core.cost.efficiency import Efficiency, efficiency_of
from millrace.core.cost.shape import StepShape
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec

# An engine that schedules while the device computes still joins the two once a step. Assumed, not measured.
HOST_S = 300e-6
# vLLM 0.19's sampler on two GPUs: 12 to 25 us, and 8 to 10 bytes moved per sequence and vocabulary entry.
SAMPLER_S = 20e-6
SAMPLER_BYTES = 9
# Experts' products, in groups of few tokens, reach this share of what large ones do, and start later
# (vLLM 0.19, Qwen3-30B-A3B on RTX PRO 6000, 6 % off).
EXPERT_COMPUTE = 0.70
EXPERT_LAYER_S = 5e-6
# A kernel that only moves memory draws less than one that computes. The share is an assumption, in line with
# Splitwise (ISCA 2024), where prompts draw the full thermal design power and decoding far from it.
MEMORY_POWER = 0.6


class _Product:
    """A matrix product: softly the longer of computing and of reading the weights."""

    __slots__ = ("compute_s", "inverse", "read_s", "softness")

    def __init__(self, compute_s: float, read_s: float, softness: float) -> None:
        self.compute_s = compute_s
        self.read_s = read_s
        self.softness = softness
        self.inverse = 1 / softness

    def price_s(self, tokens: int, weights: float = 1.0) -> float:
        """Seconds for `tokens` rows and `weights` as many weights as one reading holds."""
        computed: float = (tokens * self.compute_s) ** self.softness
        read: float = (weights * self.read_s) ** self.softness
        price_s: float = (computed + read) ** self.inverse
        return price_s


class Roofline:
    """Prices the steps of one replica: a model on `tensor_parallel` devices of a kind.

    `host_s` is what every step spends outside the devices. `expected_error` says in words how far off the
    figures behind the prices were where they could be measured.
    """

    def __init__(
        self,
        model: ModelSpec,
        device: DeviceSpec,
        *,
        tensor_parallel: int = 1,
        host_s: float = HOST_S,
        efficiency: Efficiency | None = None,
    ) -> None:
        check_tensor_parallel(model, device, tensor_parallel)
        self.model = model
        self.device = device
        self.tensor_parallel = tensor_parallel
        self.host_s = host_s
        self.efficiency = efficiency or efficiency_of(device.name)
        self._set_products()
        self._set_overheads()
        self._set_attention()

    @property
    def expected_error(self) -> str:
        """How far off the figures behind the prices were, in words."""
        return self.efficiency.expected_error

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes; an empty one takes none."""
        tokens = shape.decodes + shape.prefill_tokens
        if not tokens:
            return 0.0
        seconds = (
            self._step_s + tokens * self._token_s + self._dense.price_s(tokens) + self._attention_s(shape)
        )
        if self._experts:
            seconds += self._experts.price_s(tokens, self._woken(tokens))
        if shape.emits:
            seconds += self._sampler_s + shape.emits * self._emit_s + self._head.price_s(shape.emits)
        return seconds

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws on all devices; NaN where the data sheet knows no power.

        Power rises from idle to the thermal design power with the share of the step in which the device
        computes at its best rate, or with 0.6 of the share in which it reads at its best rate.
        """
        seconds = self.step_s(shape)
        if self.device.tdp_w is None or self.device.idle_w is None:
            return nan
        busy = (
            max(self._computing_s(shape), MEMORY_POWER * self._reading_s(shape)) / seconds if seconds else 0.0
        )
        power_w = self.device.idle_w + (self.device.tdp_w - self.device.idle_w) * min(1.0, busy)
        return power_w * seconds * self.tensor_parallel

    def _attention_s(self, shape: StepShape) -> float:
        if not shape.prefills:
            return (
                self._decode_layers_s
                + shape.decodes * self._decode_sequence_s
                + shape.decode_context_tokens * self._decode_context_s
            )
        return (
            self._prefill_layers_s
            + shape.prefill_attended_tokens
            * self._pair_s
            * max(1.0, self._prefill_fill / shape.prefill_tokens)
            + shape.decodes * self._mixed_sequence_s
            + shape.decode_context_tokens * self._mixed_context_s
        )

    def _woken(self, tokens: int) -> float:
        """Experts that `tokens` tokens are expected to wake in a layer, if all are equally likely."""
        spec = self.model
        return spec.experts * (1 - (1 - spec.active_experts / spec.experts) ** tokens)

    def _computing_s(self, shape: StepShape) -> float:
        seconds = shape.tokens * self._dense.compute_s + shape.emits * self._head.compute_s
        if self._experts:
            seconds += shape.tokens * self._experts.compute_s
        return seconds + shape.prefill_attended_tokens * self._pair_s

    def _reading_s(self, shape: StepShape) -> float:
        seconds = self._dense.read_s + shape.decode_context_tokens * self._read_s
        if self._experts:
            seconds += self._woken(shape.tokens) * self._experts.read_s
        return seconds + (self._head.read_s if shape.emits else 0.0)

    def _set_products(self) -> None:
        model, device, efficiency = self.model, self.device, self.efficiency
        peak = device.fp8_flops if model.weight_bytes_each <= 1 and device.fp8_flops else device.flops
        compute_s = 2 / (peak * efficiency.compute * self.tensor_parallel)
        bandwidth = device.memory_bytes_per_s * efficiency.bandwidth * self.tensor_parallel
        read_s = model.weight_bytes_each / bandwidth

        def product(computed: float, read: int) -> _Product:
            return _Product(computed * compute_s, read * read_s, efficiency.softness)

        expert = model.expert_layers * model.expert_weights
        self._dense = product(model.dense_weights, model.dense_weights)
        self._head = product(model.head_weights, model.head_weights)
        self._experts = product(expert * model.active_experts / EXPERT_COMPUTE, expert) if expert else None

    def _set_overheads(self) -> None:
        model, device, efficiency = self.model, self.device, self.efficiency
        bandwidth = device.memory_bytes_per_s
        moved = 10 * model.hidden + self._activations / self.tensor_parallel
        self._step_s = self.host_s + model.layers * efficiency.layer_s + model.expert_layers * EXPERT_LAYER_S
        self._token_s = model.layers * 2 * moved / (bandwidth * efficiency.elementwise)
        self._sampler_s = SAMPLER_S
        self._emit_s = SAMPLER_BYTES * model.vocab / bandwidth
        if self.tensor_parallel > 1:
            ring = 2 * (self.tensor_parallel - 1) / self.tensor_parallel
            sent_s = 2 * ring / ((device.link_bytes_per_s or nan) * efficiency.link)
            self._step_s += 2 * model.layers * efficiency.all_reduce_s
            self._token_s += 2 * model.layers * model.hidden * sent_s
            self._sampler_s += efficiency.all_reduce_s
            self._emit_s += model.vocab * sent_s / 2

    def _set_attention(self) -> None:
        model, device, efficiency = self.model, self.device, self.efficiency
        layers, heads = model.layers, model.heads / self.tensor_parallel
        kv_heads = layers * (1 if model.latent else max(1, model.kv_heads / self.tensor_parallel))
        looks_s = layers / (device.flops * efficiency.prefill_compute * self.tensor_parallel)
        cached_s = model.flops_per_cached_token * looks_s
        cache_bytes = model.kv_bytes_per_token_each(self.tensor_parallel)
        self._read_s = cache_bytes / (device.memory_bytes_per_s * efficiency.decode_bandwidth)
        self._pair_s = model.flops_per_pair * looks_s
        self._prefill_fill = efficiency.prefill_rows / heads
        self._decode_layers_s = layers * efficiency.decode_s
        self._decode_sequence_s = kv_heads * efficiency.decode_head_s
        self._decode_context_s = max(self._read_s, cached_s)
        self._prefill_layers_s = layers * efficiency.prefill_s
        self._mixed_sequence_s = kv_heads * efficiency.mixed_head_s
        # Latent attention decodes in a kernel of its own, whatever else is in the batch.
        self._mixed_context_s = (
            self._decode_context_s if model.latent else self._read_s + efficiency.mixed_rows * cached_s
        )

    @property
    def _activations(self) -> float:
        """Numbers a token moves within a layer's attention and MLP, between the matrix products."""
        model = self.model
        widths = model.dense_layers * model.ffn if model.experts else model.layers * model.ffn
        widths += model.expert_layers * (model.active_experts + model.shared_experts) * model.expert_ffn
        return 2 * (model.heads + model.kv_heads) * model.head_dim + 3 * widths / model.layers


def check_tensor_parallel(model: ModelSpec, device: DeviceSpec, degree: int) -> None:
    """Raise ValueError if the model's heads cannot be split over `degree` such devices."""
    if degree < 1 or model.heads % degree:
        raise ValueError(
            f"tensor_parallel is {degree}; it must divide the {model.heads} heads of {model.name}"
        )
    if degree > 1 and device.link_bytes_per_s is None:
        raise ValueError(
            f"tensor_parallel is {degree}, but a {device.name} has no link to another: set it to 1"
        )
