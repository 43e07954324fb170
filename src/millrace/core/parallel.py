"""Ways to spread a model over devices: tensor, pipeline and data parallelism, and what a pipeline costs.

A pipeline of p stages with p batches under way serves like p replicas that each take a whole step's time for
a step, and hold one p-th of the cache: while a batch is in one stage, the others are in the others. Stages
are taken to be equally long, so bubbles between unequal batches are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.cost import CostModel, StepShape
from millrace.core.device import DeviceSpec
from millrace.core.memory import kv_blocks
from millrace.core.model import ModelSpec
from millrace.core.replica import Limits

_BYTES_EACH = 2  # of an activation: bf16


class Cluster(Struct, frozen=True, kw_only=True):
    """Equal machines; `link_bytes_per_s` is what one device can send to another machine, and `start_s` the
    time before the first byte of a message arrives."""

    device: DeviceSpec
    machines: int
    devices_each: int
    link_bytes_per_s: float
    start_s: float

    @property
    def devices(self) -> int:
        """All devices."""
        return self.machines * self.devices_each


class Plan(Struct, frozen=True, kw_only=True):
    """How a model is spread: each layer over `tensor` devices, layers over `pipeline` stages, all that
    `data` times."""

    tensor: int
    pipeline: int
    data: int

    def __str__(self) -> str:
        return f"tp={self.tensor} pp={self.pipeline} dp={self.data}"

    @property
    def batches(self) -> int:
        """Batches under way at a time."""
        return self.pipeline * self.data


class Staged:
    """Prices a step through all stages of a pipeline: the step itself, and the sending between stages."""

    needs_lengths = False

    def __init__(self, cost: CostModel, model: ModelSpec, plan: Plan, cluster: Cluster) -> None:
        self._cost = cost
        devices = plan.tensor * plan.pipeline
        across = min(plan.pipeline, -(-devices // cluster.devices_each)) - 1
        within = plan.pipeline - 1 - across
        token_bytes = _BYTES_EACH * model.hidden / plan.tensor
        near_bytes_per_s = cluster.device.link_bytes_per_s or cluster.link_bytes_per_s
        self._sends_s = (across + within) * cluster.start_s
        self._token_s = token_bytes * (across / cluster.link_bytes_per_s + within / near_bytes_per_s)

    def step_s(self, shape: StepShape) -> float:
        """Seconds from the first stage's start to the last one's end; an empty step takes none."""
        return self._cost.step_s(shape) + (
            self._sends_s + shape.tokens * self._token_s if shape.tokens else 0
        )

    def step_j(self, shape: StepShape) -> float:
        """Joules of all stages while they work on this step; sending draws none of its own."""
        return self._cost.step_j(shape)


def plans(model: ModelSpec, cluster: Cluster, limits: Limits) -> Iterator[tuple[Plan, Limits]]:
    """Yield every plan that uses all devices and fits, with the limits of each of its batches.

    Tensor parallelism stays within a machine and must divide the heads; stages must divide the layers.
    """
    for tensor in _divisors(cluster.devices_each):
        for pipeline in _divisors(cluster.devices // tensor):
            if model.heads % tensor or model.layers % pipeline:
                continue
            blocks = _blocks_each(model, cluster.device, tensor, pipeline, limits)
            if blocks:
                data = cluster.devices // (tensor * pipeline)
                yield Plan(tensor=tensor, pipeline=pipeline, data=data), replace(limits, kv_blocks=blocks)


def _blocks_each(
    model: ModelSpec, device: DeviceSpec, tensor: int, pipeline: int, limits: Limits
) -> int | None:
    """Cache blocks of one of the batches in a pipeline; None if the model or one request does not fit."""
    stage = replace(model, layers=model.layers // pipeline, dense_layers=model.dense_layers // pipeline)
    try:
        blocks = kv_blocks(stage, device, tensor, limits) // pipeline
    except ValueError:
        return None
    return blocks if blocks * limits.block_tokens >= limits.context_tokens else None


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
