"""Simulated servers from a fleet described in a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from millrace.core.cost import CostModel
from millrace.core.fleet_spec import FleetGroup, members
from millrace.simulate.engine import ServerSpec


def servers(
    groups: Sequence[FleetGroup],
    cost_of: Callable[[FleetGroup], CostModel] | None = None,
    *,
    cold_start_s: float | None = None,
    load_bytes_per_s: float | None = None,
) -> list[ServerSpec]:
    """Return a fleet's servers, priced by `cost_of` or else by data sheets; a group shares its prices.

    A replica that starts is ready after its group's `cold_start_s`, or when it has read all its weights at
    its group's `load_bytes_per_s`; else after the seconds, or by the bandwidth, given here; else at once.
    """
    costs = {id(each): each.staged(cost_of(each) if cost_of else each.roofline) for each in groups}
    specs = {id(group): group.replica_spec(costs[id(group)]) for group in groups}
    return [
        ServerSpec(
            id=name,
            spec=specs[id(group)],
            cost=costs[id(group)],
            ahead=group.ahead,
            ranks=group.expert_parallel,
            cold_start_s=_cold_start_s(group, cold_start_s, load_bytes_per_s),
            idle_w=group.idle_w,
            kv_bytes_per_token=group.model.kv_bytes_per_token,
            encoder=group.encoder,
        )
        for name, group in members(groups)
    ]


def _cold_start_s(group: FleetGroup, else_s: float | None, else_bytes_per_s: float | None) -> float:
    """What a group says of itself comes before what is said of all, and seconds before a bandwidth."""
    if group.cold_start_s is not None:
        return group.cold_start_s
    if group.load_bytes_per_s is not None:
        return group.model.weight_bytes / group.load_bytes_per_s
    if else_s is not None:
        return else_s
    return group.model.weight_bytes / else_bytes_per_s if else_bytes_per_s else 0.0
