"""Simulated servers from a fleet described in a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from millrace.core.cost import CostModel
from millrace.core.fleet_spec import FleetGroup, members
from millrace.simulate.server import ServerSpec


def servers(
    groups: Sequence[FleetGroup],
    cost_of: Callable[[FleetGroup], CostModel] | None = None,
    *,
    load_bytes_per_s: float | None = None,
) -> list[ServerSpec]:
    """Return a fleet's servers, priced by `cost_of` or else by data sheets; a group shares its prices.

    A replica that starts reads its weights at `load_bytes_per_s` first (None: it is ready at once).
    """
    costs = {id(group): cost_of(group) if cost_of else group.roofline for group in groups}
    specs = {id(group): group.replica_spec(costs[id(group)]) for group in groups}
    return [
        ServerSpec(
            id=name,
            spec=specs[id(group)],
            cost=costs[id(group)],
            cold_start_s=group.model.weight_bytes / load_bytes_per_s if load_bytes_per_s else 0.0,
        )
        for name, group in members(groups)
    ]
