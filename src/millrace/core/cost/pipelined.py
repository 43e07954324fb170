"""A step through the stages of a pipeline, with several batches under way, as vLLM keeps it filled.

What is priced is a round: every running sequence passes all stages once, in up to as many batches as there
are stages, one behind the other. A round lasts as long as the largest batch takes through all stages, for
the others queue behind it: bubbles between unequal batches are counted, and a batch that is alone gains
nothing. Requests are taken to join between rounds, where vLLM lets them join between batches: a new one
waits up to one round too long, less one batch.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from millrace.core.cost.collective import expected
from millrace.core.cost.efficiency import efficiency_of
from millrace.core.cost.shape import ENDLESS, CostModel, StepShape
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec

_BYTES_EACH = 2  # of an activation: bf16
_SENT = 2  # hidden states, and the residual that has not been added yet


class Pipelined:
    """Prices a round over `stages` stages, given `cost` of a step on all layers and the devices of one stage.

    `step_tokens` is what one batch may hold; a round may hold as much for every stage. Layers that do not
    divide leave one stage longer than the others, and all wait for it. A send takes what an all-reduce
    between two devices does. Raises ValueError for fewer layers than stages, or devices without a link.
    """

    def __init__(
        self, cost: CostModel, model: ModelSpec, device: DeviceSpec, *, stages: int, step_tokens: int
    ) -> None:
        check_stages(model, device, stages)
        self.cost = cost
        self.stages = stages
        self.step_tokens = step_tokens
        self.needs_lengths: bool = getattr(cost, "needs_lengths", False)
        self._straight: Callable[[StepShape, StepShape], int] | None = getattr(cost, "straight", None)
        self._uneven = -(-model.layers // stages) * stages / model.layers
        self._idle_w = device.idle_w
        link = expected(device, efficiency_of(device.name), 2)
        self._send_s = (stages - 1) * link.start_s
        self._token_s = (stages - 1) * _SENT * _BYTES_EACH * model.hidden * link.per_byte_s

    def step_s(self, shape: StepShape) -> float:
        """Seconds until every sequence has passed all stages; an empty round takes none."""
        if not shape.tokens:
            return 0.0
        largest, _ = self.batches(shape)
        return self._uneven * self.cost.step_s(largest) + self._send_s + largest.tokens * self._token_s

    def step_j(self, shape: StepShape) -> float:
        """Joules of all stages, those that wait included where their idle power is known; NaN if none is."""
        if not shape.tokens:
            return 0.0
        largest, batches = self.batches(shape)
        waiting_s = self.stages * self.step_s(shape) - batches * self.cost.step_s(largest)
        return batches * self.cost.step_j(largest) + max(0.0, waiting_s) * (self._idle_w or 0.0)

    def straight(self, shape: StepShape, following: StepShape) -> int:
        """Return how many rounds from `shape` on, then `following`, rise by equal amounts, at least 1."""
        if shape.prefills:
            return 1  # a prompt is cut into batches anew in every round
        if not self._straight:
            return ENDLESS
        return self._straight(self.batches(shape)[0], self.batches(following)[0])

    @property
    def price_per_h(self) -> float | None:
        """Dollars an hour for the devices of all stages; None where it is not known."""
        price: float | None = getattr(self.cost, "price_per_h", None)
        return None if price is None else self.stages * price

    @property
    def expected_error(self) -> str:
        """How far off a stage is expected to be, in words; pipelines were not measured."""
        return f"{getattr(self.cost, 'expected_error', 'not measured')}; pipelines not measured"

    def batches(self, shape: StepShape) -> tuple[StepShape, int]:
        """Return the largest batch of a round, and how many batches there are.

        Decodes are dealt out evenly. A prompt is only cut where it is longer than a batch may be.
        """
        chunks = max(shape.prefills, -(-shape.prefill_tokens // self.step_tokens))
        count = min(self.stages, shape.decodes + chunks)
        shared = max(1, min(count, chunks))
        decodes = -(-shape.decodes // count)
        # In proportion to the decodes, so that a round's growth stays a whole number of tokens.
        context = shape.decode_context_tokens * decodes // max(1, shape.decodes)
        largest = replace(
            shape,
            decodes=decodes,
            decode_context_tokens=context,
            prefills=-(-shape.prefills // shared),
            prefill_tokens=-(-shape.prefill_tokens // shared),
            prefill_attended_tokens=-(-shape.prefill_attended_tokens // shared),
            emits=-(-shape.emits // count),
        )
        return largest, count


def check_stages(model: ModelSpec, device: DeviceSpec, stages: int) -> None:
    """Raise ValueError if the model's layers cannot be split over so many stages of such devices."""
    if not 1 <= stages <= model.layers:
        raise ValueError(
            f"pipeline_parallel is {stages}; it must be from 1 to the {model.layers} layers of {model.name}"
        )
    if stages > 1 and device.link_bytes_per_s is None:
        raise ValueError(
            f"pipeline_parallel is {stages}, but a {device.name} has no link to another: set it to 1"
        )
