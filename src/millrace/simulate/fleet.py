"""Simulated servers from a fleet described in a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from millrace.core.cost import CostModel
from millrace.core.fleet_spec import FleetGroup, members
from millrace.simulate.server import ServerSpec


def servers(
    groups: Sequence[FleetGroup], cost_of: Callable[[FleetGroup], CostModel] | None = None
) -> list[ServerSpec]:
    """Return a fleet's servers, priced by `cost_of` or else by data sheets; a group shares its prices."""
    costs = {id(group): cost_of(group) if cost_of else group.roofline for group in groups}
    specs = {id(group): group.replica_spec(costs[id(group)]) for group in groups}
    every = ((name, id(group)) for name, group in members(groups))
    return [ServerSpec(id=name, spec=specs[key], cost=costs[key]) for name, key in every]
