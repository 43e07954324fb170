"""A step whose operations keep several resources of a device busy at once, priced from data sheets.

NanoFlow (Zhu et al., arXiv:2408.12757) lets nano-batches compute, read caches and send beside each other.
TokenWeave (Gond et al., arXiv:2505.11329) splits the tokens in two halves, and one sends while the other
computes; what its fused kernel saves on norms is not counted. Both are priced by the figures of the roofline,
and never above it: small batches are not split.
"""

from __future__ import annotations

from typing import Literal, get_args

from msgspec.structs import replace

from millrace.core.cost.efficiency import Efficiency
from millrace.core.cost.roofline import HOST_S, Roofline
from millrace.core.cost.shape import ENDLESS, Line, StepShape, later
from millrace.core.cost.waves import halves
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec

Overlap = Literal["nanoflow", "tokenweave"]
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)

# Nano-batches of a step, and how much of the time of the busiest resource their schedules reach: the least
# that `core.nano_batches` finds for LLaMA-2-70B on A100, if kernels run at 80 % of their speed beside others.
PARTS = 3
REACHED = 0.8
# TokenWeave's fused kernel takes 2 to 8 of the 132 multiprocessors of an H100; 8 are the more cautious.
SENDING_SHARE = 8 / 132

Terms = tuple[float, float, tuple[tuple[float, ...], ...]]
"""Seconds of the step as it is; of what overlaps with nothing; and of things that go on side by side."""


class Overlapping(Roofline):
    """Prices the steps of an engine that overlaps, as `how` says; no step is dearer than without.

    Raises ValueError for models with experts or latent attention, and for halves that send nothing.
    """

    def __init__(
        self,
        model: ModelSpec,
        device: DeviceSpec,
        how: Overlap,
        *,
        tensor_parallel: int = 1,
        host_s: float = HOST_S,
        efficiency: Efficiency | None = None,
    ) -> None:
        if model.experts or model.latent:
            raise ValueError(
                f"{model.name} has experts or latent attention; overlap is priced of dense models"
            )
        if how == "tokenweave" and tensor_parallel == 1:
            raise ValueError("tokenweave hides what devices send each other: give it tp=2 or more")
        super().__init__(model, device, tensor_parallel=tensor_parallel, host_s=host_s, efficiency=efficiency)
        self.how = how
        self._moving_s = self._token_s - self.exchange.per_token_s
        self._launch_s = model.layers * self.efficiency.layer_s
        self._attention_share = model.layers * model.attention_weights / model.dense_weights

    @property
    def expected_error(self) -> str:
        """How far off the figures behind the prices were, in words; nobody measured the overlap."""
        return f"{super().expected_error}; overlap not measured"

    def own_s(self, shape: StepShape) -> float:
        """Seconds the iteration takes; an empty one takes none."""
        if not shape.tokens:
            return 0.0
        return _price_s(self._terms(shape))

    def line(self, shape: StepShape) -> Line:
        """Return the line on which the prices from `shape` on lie, up to where something else is longest."""
        following = later(shape, 1)
        first_s = self.step_s(shape)
        return first_s, self.step_s(following) - first_s, self.straight(shape, following)

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many iterations from `shape` on, then `following`, rise by equal amounts, at least 1."""
        plain_s, rest_s, beside = self._terms(shape)
        next_plain_s, next_rest_s, next_beside = self._terms(following)
        steps, first_s, second_s = ENDLESS, rest_s, next_rest_s
        for now, then in zip(beside, next_beside, strict=True):
            longest = now.index(max(now))
            first_s, second_s = first_s + now[longest], second_s + then[longest]
            for one, next_one in zip(now, then, strict=True):
                steps = min(steps, _until(now[longest] - one, then[longest] - next_one))
        gap_s, next_gap_s = plain_s - first_s, next_plain_s - second_s
        return min(steps, _until(abs(gap_s), next_gap_s if gap_s >= 0 else -next_gap_s))

    def overlapped_s(self, shape: StepShape) -> float:
        """Seconds of the iteration if it is split, however small it is."""
        _, rest_s, beside = self._terms(shape)
        return rest_s + sum(map(max, beside))

    def _terms(self, shape: StepShape) -> Terms:
        plain_s = super().own_s(shape)
        return (plain_s, *(self._in_parts(shape) if self.how == "nanoflow" else self._in_halves(shape)))

    def _in_parts(self, shape: StepShape) -> tuple[float, tuple[tuple[float, ...], ...]]:
        """Price nano-batches: computing, reading caches and sending go on side by side."""
        tokens = shape.tokens
        compute_s = PARTS * (self._dense.price_s(tokens / PARTS) + self._launch_s) + tokens * self._moving_s
        prompts_s = (
            self.attention_s(replace(shape, decodes=0, decode_context_tokens=0)) if shape.prefills else 0.0
        )
        read_s = self.attention_s(shape) - prompts_s
        if shape.prefills:
            compute_s += prompts_s + (PARTS - 1) * self._prefill_layers_s
        else:
            read_s += (PARTS - 1) * self._decode_layers_s
        send_s = PARTS * self.exchange.start_s + tokens * self.exchange.per_token_s
        beside = (compute_s / REACHED, read_s / REACHED, send_s / REACHED)
        return self.host_s + self._heads[shape.emits], (beside,)

    def _in_halves(self, shape: StepShape) -> tuple[float, tuple[tuple[float, ...], ...]]:
        """Price two halves: what one sends after attention, or after the MLP, goes on beside the other."""
        tokens = shape.tokens
        products_s = self._split_s(tokens)
        send_s = (2 * self.exchange.start_s + tokens * self.exchange.per_token_s) / 2
        mlp_s = (1 - self._attention_share) * products_s + self._launch_s + tokens * self._moving_s
        attention_s = self._attention_share * products_s + self._launch_s + self.attention_s(shape)
        beside = tuple((one_s + SENDING_SHARE * send_s, send_s) for one_s in (attention_s, mlp_s))
        last_s = send_s / (2 * self.model.layers)
        return self.host_s + self._heads[shape.emits] + last_s, beside

    def _split_s(self, tokens: int) -> float:
        """Seconds of the matrix products of both halves, which may take more waves than the whole."""
        model, devices = self.model, self.tensor_parallel
        widths = (
            (model.heads + 2 * model.kv_heads) * model.head_dim // devices,
            model.hidden,
            2 * model.ffn // devices,
            model.hidden,
        )
        split = halves(tokens, widths, self.device.name)
        apart_s = self._dense.price_s(split.first) + self._dense.price_s(tokens - split.first)
        return max(apart_s, split.waves * self._dense.price_s(tokens))


def _price_s(terms: Terms) -> float:
    plain_s, rest_s, beside = terms
    return min(plain_s, rest_s + sum(map(max, beside)))


def _until(ahead_s: float, next_ahead_s: float) -> int:
    """Return for how many iterations something stays ahead, if it falls behind by as much in each."""
    lost_s = ahead_s - next_ahead_s
    return ENDLESS if lost_s <= 0 else max(1, min(ENDLESS, int(ahead_s / lost_s) + 1))
