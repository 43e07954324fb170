"""What happens while a fleet serves, as it was typed: faults, the network, and how often load is reported."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from millrace.cli.options import duration_s, read, times
from millrace.cli.simulating.pools import pool_of
from millrace.core.fleet_spec import FleetGroup
from millrace.core.quantity import bytes_per_s
from millrace.core.suggest import unknown
from millrace.core.ways import Assumed
from millrace.simulate import ServerSpec, Surroundings, parse_faults
from millrace.simulate.faults import Fault
from millrace.simulate.links import Link


def surroundings_of(
    *,
    network: str | None,
    scrape: str | None,
    slowdowns: str | None,
    link: str | None = None,
    cache_pool: str | None = None,
    faults: str | None,
    failover: str | None = None,
    replicas: Collection[str],
) -> Surroundings:
    """Return what lies between a gateway and these replicas, and happens to them; None is nothing.

    Raises ValueError, naming the option.
    """
    to_s, from_s = read("--network", _ways, network) or (0.0, 0.0)
    return Surroundings(
        to_engine_s=to_s,
        from_engine_s=from_s,
        scrape_s=read("--scrape", _period, scrape),
        slowdowns=read("--slowdowns", _slowdowns, slowdowns) or (),
        faults=_known(_faults(faults), replicas) if faults is not None else (),
        link=read("--link", _link, link) or Link(),
        pool=read("--cache-pool", pool_of, cache_pool),
        failover=failover == "on",
    )


def leaving_of(around: Surroundings, groups: Iterable[FleetGroup]) -> Assumed | UnsetType:
    """Return what answers reckon with on replicas that drain; unset if they end there, or cannot leave."""
    drains = any(fault.deed == "drain" for fault in around.faults)
    movable = all(group.expert_parallel == 1 and group.role != "encode" for group in groups)
    if not (drains and movable and around.failover):
        return UNSET
    return Assumed(link_bytes_per_s=around.link.bytes_per_s, link_latency_s=around.link.latency_s)


def giving(server: ServerSpec) -> ServerSpec:
    """Let a replica say what its KV cache is: those of one model fit each other."""
    said = {"kv_format": server.spec.models[0], "kv_bytes_per_token": server.kv_bytes_per_token}
    return replace(server, spec=replace(server.spec, **said))


def _ways(text: str) -> tuple[float, float]:
    ways_s = [duration_s(part) for part in text.split(",")]
    if len(ways_s) > 2:
        raise ValueError(f"{text} has {len(ways_s)} times; write one for both ways, or two, like 1ms,2ms")
    return ways_s[0], ways_s[-1]


def _link(text: str) -> Link:
    speed, comma, latency = text.partition(",")
    if not comma:
        return Link(bytes_per_s=bytes_per_s(speed))
    return Link(bytes_per_s=bytes_per_s(speed), latency_s=duration_s(latency))


def _period(text: str) -> float:
    period_s = duration_s(text)
    if not period_s:
        raise ValueError(f"{text} is no period; write one above 0, like 5s, or leave it out")
    return period_s


def _slowdowns(text: str) -> tuple[float, ...]:
    return tuple(times(part) for part in text.split(","))


def _faults(text: str) -> tuple[Fault, ...]:
    """Read a script, or the file that it is in."""
    if text.lstrip().startswith("{") or " at " in f" {text}":
        return _script("--faults", text)
    path = Path(text)
    if not path.is_file():
        raise ValueError(
            f"--faults: there is no file {text}; name one, or write the faults, like 'kill r0 at 60s'"
        )
    return _script(f"--faults {text}", path.read_text(encoding="utf-8"))


def _script(where: str, text: str) -> tuple[Fault, ...]:
    found = read(where, parse_faults, text)
    if not found:
        raise ValueError(f"{where}: has no faults; write them like 'kill r0 at 60s; start r0 at 90s'")
    return found


def _known(faults: tuple[Fault, ...], replicas: Collection[str]) -> tuple[Fault, ...]:
    for fault in faults:
        if fault.replica not in replicas:
            raise ValueError(f"--faults: {unknown('replica', fault.replica, replicas)}")
    return faults
