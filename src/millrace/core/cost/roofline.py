"""A step priced from a model's shape and a device's data sheet: where there is no measurement, or not yet.

Everything a step does is in it: matrix products, attention, LM head and sampler, small kernels, all-reduces
of tensor parallelism, experts woken, and the host. The functional forms and their errors are those of
`core.cost.efficiency`; for a fixed composition of the batch the price is affine in the tokens attended to.
"""

from __future__ import annotations

from collections.abc import Callable
from math import nan

from millrace.core.cost.collective import Collective, expected
from millrace.core.cost.efficiency import Efficiency, efficiency_of
from millrace.core.cost.operators import Exchange, exchange_of
from millrace.core.cost.shape import ENDLESS, Line, StepShape
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

    def price_s(self, tokens: float, weights: float = 1.0) -> float:
        """Seconds for `tokens` rows and `weights` as many weights as one reading holds."""
        computed: float = (tokens * self.compute_s) ** self.softness
        read: float = (weights * self.read_s) ** self.softness
        price_s: float = (computed + read) ** self.inverse
        return price_s


class _Remembered(dict[int, float]):
    """Prices by a number that is at most the tokens of a step, each worked out once."""

    def __init__(self, price: Callable[[int], float]) -> None:
        super().__init__()
        self._price = price

    def __missing__(self, number: int) -> float:
        price = self[number] = self._price(number)
        return price


class Roofline:
    """Prices the steps of one replica: a model on `tensor_parallel` devices of a kind.

    Experts may be spread over `data_parallel` such ranks, each with requests of its own. `host_s` is what
    every step spends outside the devices. `expected_error` says in words how far off the figures behind the
    prices were where they could be measured.
    """

    def __init__(
        self,
        model: ModelSpec,
        device: DeviceSpec,
        *,
        tensor_parallel: int = 1,
        data_parallel: int = 1,
        host_s: float = HOST_S,
        efficiency: Efficiency | None = None,
    ) -> None:
        check_tensor_parallel(model, device, tensor_parallel)
        self.model = model
        self.device = device
        self.tensor_parallel = tensor_parallel
        self.data_parallel = data_parallel
        self.host_s = host_s
        self.efficiency = efficiency or efficiency_of(device.name)
        self.exchange = self._exchange()
        self._set_products()
        self._set_overheads()
        self._set_attention()
        self._rows = _Remembered(self._rows_s)
        self._heads = _Remembered(self.head_s)

    @property
    def expected_error(self) -> str:
        """How far off the figures behind the prices were, in words."""
        return self.efficiency.expected_error

    needs_lengths = False

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """For a fixed composition of the batch the price is one straight line."""
        return ENDLESS

    def step_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes; an empty one takes none."""
        own_s = self.own_s(shape)
        return own_s + self.experts_s(shape.decodes + shape.prefill_tokens) if self._experts else own_s

    def line(self, shape: StepShape) -> Line:
        """Return the line on which the prices from `shape` on lie: it never bends."""
        decodes = shape.decodes
        if not shape.prefills and not self._experts:
            # `step_s` of decodes alone, inlined: most runs of a simulation are priced here.
            gain_s = decodes * self._decode_context_s
            attention_s = (
                self._decode_layers_s
                + decodes * self._decode_sequence_s
                + shape.decode_context_tokens * self._decode_context_s
            )
            return self._rows[decodes] + attention_s + self._heads[shape.emits], gain_s, ENDLESS
        if not shape.prefills:
            return self.step_s(shape), decodes * self._decode_context_s, ENDLESS
        pairs = shape.prefill_tokens * shape.prefill_tokens
        gain_s = pairs * self._pair_s * max(1.0, self._prefill_fill / shape.prefill_tokens)
        return self.step_s(shape), gain_s + decodes * self._mixed_context_s, ENDLESS

    def own_s(self, shape: StepShape) -> float:
        """The same without the experts, which ranks may share."""
        tokens = shape.decodes + shape.prefill_tokens
        if not tokens:
            return 0.0
        return self._rows[tokens] + self.attention_s(shape) + self._heads[shape.emits]

    def _rows_s(self, tokens: int) -> float:
        return self._step_s + tokens * self._token_s + self._dense.price_s(tokens)

    def experts_s(self, tokens: int) -> float:
        """Seconds of the experts for the tokens of all ranks that share them."""
        if not self._experts or not tokens:
            return 0.0
        seconds = self._experts.price_s(tokens, self._woken(tokens))
        return seconds + self.exchange.experts_start_s + tokens * self.exchange.experts_token_s

    def head_s(self, sequences: int) -> float:
        """Seconds of the LM head and the sampler for so many sequences."""
        if not sequences:
            return 0.0
        return self._sampler_s + sequences * self._emit_s + self._head.price_s(sequences)

    def step_j(self, shape: StepShape) -> float:
        """Joules the iteration draws on all devices; NaN where the data sheet knows no power."""
        seconds = self.step_s(shape)
        return self.power_w(shape, seconds) * seconds

    def rank_j(self, shape: StepShape, tokens: int, seconds: float) -> float:
        """Joules a rank draws in an iteration of this length, if all ranks have `tokens`; NaN if not known.

        A rank without tokens goes along with an empty batch, as vLLM's do, and reads its weights for it.
        """
        return self.power_w(shape, seconds, tokens) * seconds

    def power_w(self, shape: StepShape, seconds: float, tokens: int | None = None) -> float:
        """Watts that all devices draw if the iteration takes this long; NaN where no power is known.

        `tokens` are those that the experts compute, which are the iteration's own if nobody shares them.

        Power rises from idle to the thermal design power with the share of the step in which the device
        computes at its best rate, or with 0.6 of the share in which it reads at its best rate.
        """
        device = self.device
        if device.tdp_w is None or device.idle_w is None:
            return nan
        routed = shape.tokens if tokens is None else tokens
        working_s = max(self._computing_s(shape, routed), MEMORY_POWER * self._reading_s(shape, routed))
        busy = min(1.0, working_s / seconds) if seconds else 0.0
        return (device.idle_w + (device.tdp_w - device.idle_w) * busy) * self.tensor_parallel

    @property
    def price_per_h(self) -> float | None:
        """Dollars an hour for all devices; None where the data sheet knows no price."""
        price = self.device.price_per_h
        return None if price is None else price * self.tensor_parallel

    def attention_s(self, shape: StepShape) -> float:
        """Seconds of attention in all layers."""
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

    def _computing_s(self, shape: StepShape, routed: int) -> float:
        seconds = shape.tokens * self._dense.compute_s + shape.emits * self._head.compute_s
        if self._experts:
            seconds += routed * self._experts.compute_s
        return seconds + shape.prefill_attended_tokens * self._pair_s

    def _reading_s(self, shape: StepShape, routed: int) -> float:
        seconds = self._dense.read_s + shape.decode_context_tokens * self._read_s
        if self._experts:
            seconds += self._woken(routed) * self._experts.read_s
        return seconds + (self._head.read_s if shape.emits else 0.0)

    def _set_products(self) -> None:
        model, device, efficiency = self.model, self.device, self.efficiency
        peak = device.fp8_flops if model.weight_bytes_each <= 1 and device.fp8_flops else device.flops
        compute_s = 2 / (peak * efficiency.compute * self.tensor_parallel)
        bandwidth = device.memory_bytes_per_s * efficiency.bandwidth * self.tensor_parallel
        read_s = model.weight_bytes_each / bandwidth

        def product(computed: float, read: float) -> _Product:
            return _Product(computed * compute_s, read * read_s, efficiency.softness)

        expert = model.expert_layers * model.expert_weights
        each = expert / self.data_parallel
        self._dense = product(model.dense_weights, model.dense_weights)
        self._head = product(model.head_weights, model.head_weights)
        self._experts = product(each * model.active_experts / EXPERT_COMPUTE, each) if expert else None

    def _set_overheads(self) -> None:
        model, device, efficiency = self.model, self.device, self.efficiency
        bandwidth = device.memory_bytes_per_s
        moved = 10 * model.hidden + self._activations / self.tensor_parallel
        self._step_s = self.host_s + model.layers * efficiency.layer_s + model.expert_layers * EXPERT_LAYER_S
        self._token_s = model.layers * 2 * moved / (bandwidth * efficiency.elementwise)
        self._sampler_s = SAMPLER_S
        self._emit_s = SAMPLER_BYTES * model.vocab / bandwidth
        exchange = self.exchange
        self._step_s += exchange.start_s
        self._token_s += exchange.per_token_s
        self._emit_s += exchange.per_sequence_s

    def _exchange(self) -> Exchange:
        def over(devices: int) -> Collective | None:
            return expected(self.device, self.efficiency, devices) if devices > 1 else None

        return exchange_of(self.model, over(self.tensor_parallel), experts_across=over(self.data_parallel))

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
