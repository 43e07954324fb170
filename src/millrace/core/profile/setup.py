"""How the engine is run whose steps are to be priced: what a table of operator times does not say."""

from __future__ import annotations

from msgspec import Struct

from millrace.core.cost.collective import Collective, expected
from millrace.core.cost.efficiency import efficiency_of
from millrace.core.cost.operators import Exchange, exchange_of
from millrace.core.cost.roofline import Roofline
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec


class Setup(Struct, frozen=True, kw_only=True):
    """A model on `tensor_parallel` devices, of which there are `data_parallel` ranks that share its experts.

    With `expert_parallel`, each device has whole experts; without, a slice of each. Steps of few tokens
    are rounded up to `graph_tokens`. `host_s` is added to every step. `collective` says what an all-reduce
    takes; without it, it is reckoned from the device's link.
    """

    model: ModelSpec
    device: DeviceSpec
    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    graph_tokens: tuple[int, ...] = ()
    host_s: float = 0.0
    collective: Collective | None = None

    @property
    def sheet(self) -> Roofline:
        """The same by the device's data sheet, which also knows its power and price."""
        return Roofline(
            self.model,
            self.device,
            tensor_parallel=self.tensor_parallel,
            data_parallel=self.data_parallel if self.model.experts else 1,
        )

    @property
    def exchange(self) -> Exchange:
        """What the devices of a step exchange."""
        ranks = self.data_parallel if self.model.experts else 1
        return exchange_of(self.model, self._across(self.tensor_parallel), experts_across=self._across(ranks))

    def _across(self, devices: int) -> Collective | None:
        if devices == 1:
            return None
        return self.collective or expected(self.device, efficiency_of(self.device.name), devices)
