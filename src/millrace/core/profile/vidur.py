"""Operator times as Vidur records them (microsoft/vidur, MIT): a layer's products, and collectives.

Times are in milliseconds. There is no LM head, no sampler, and in what was published no attention.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from msgspec import Struct, field

from millrace.core.cost.collective import Collective, fit_collective
from millrace.core.cost.curve import Curve, curve
from millrace.core.cost.operators import Operators
from millrace.core.cost.profiled import Profiled
from millrace.core.model import ModelSpec
from millrace.core.profile.rows import read_rows
from millrace.core.profile.setup import Setup
from millrace.core.stats import mean

_MS = 1e-3
_SEQUENCES = (1, 8, 32, 128, 512)
# Beyond this the ring is all that counts, and larger messages than a step's would outweigh the others.
_LARGEST_BYTES = 1 << 26


class _Layer(Struct, frozen=True):
    tokens: int = field(name="num_tokens")
    devices: int = field(name="num_tensor_parallel_workers")
    qkv: float = field(name="time_stats.attn_pre_proj.mean")
    rotary: float = field(name="time_stats.attn_rope.mean")
    output: float = field(name="time_stats.attn_post_proj.mean")
    up: float = field(name="time_stats.mlp_up_proj.mean")
    activation: float = field(name="time_stats.mlp_act.mean")
    down: float = field(name="time_stats.mlp_down_proj.mean")
    embedding: float = field(name="time_stats.emb.mean", default=0.0)
    input_norm: float = field(name="time_stats.input_layernorm.mean", default=0.0)
    norm: float = field(name="time_stats.post_attention_layernorm.mean", default=0.0)
    add: float = field(name="time_stats.add.mean", default=0.0)

    def seconds(self, layers: int) -> float:
        products = self.qkv + self.output + self.up + self.down
        others = self.rotary + self.activation + self.input_norm + self.norm + 2 * self.add
        return _MS * (layers * (products + others) + self.embedding)


class _Message(Struct, frozen=True):
    workers: int = field(name="num_workers")
    devices_per_node: int
    size: int
    milliseconds: float = field(name="time_stats.all_reduce.median")


def read_layers(lines: Iterable[str], model: ModelSpec, devices: int) -> Curve:
    """Read `mlp.csv`: seconds of all layers but attention, by tokens, split over so many devices."""
    found: dict[int, list[float]] = defaultdict(list)
    degrees = set()
    for row in read_rows(lines, _Layer):
        degrees.add(row.devices)
        if row.devices == devices:
            found[row.tokens].append(row.seconds(model.layers))
    if not found:
        known = ", ".join(map(str, sorted(degrees)))
        raise ValueError(f"tensor_parallel is {devices}; there are times for {known}")
    return curve({tokens: mean(values) for tokens, values in found.items()})


def read_all_reduce(lines: Iterable[str], devices: int) -> Collective:
    """Read `all_reduce.csv`: what an all-reduce takes over so many devices of one node."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in read_rows(lines, _Message):
        if row.workers == row.devices_per_node == devices and row.size <= _LARGEST_BYTES:
            found[row.size].append(row.milliseconds * _MS)
    seconds = {size: mean(values) for size, values in found.items()}
    return fit_collective(seconds, devices, "all-reduces of eager NCCL, timed by Vidur")


def profiled(dense: Curve, setup: Setup) -> Profiled:
    """Return a cost model with these layers; attention, LM head and sampler are the data sheet's."""
    sheet = setup.sheet
    head = curve({n: sheet.head_s(n) for n in _SEQUENCES})
    operators = Operators(
        dense=dense,
        head=head,
        exchange=setup.exchange,
        host_s=setup.host_s,
        graph_tokens=setup.graph_tokens,
    )
    return Profiled(operators, sheet, sheet=sheet)
