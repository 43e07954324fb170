"""One policy, one workload, one answer."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from msgspec import UNSET, Struct

from millrace.control import Controller
from millrace.control.log import entry, header
from millrace.core.batch import BatchingPolicy, informed
from millrace.core.cost import ENDLESS
from millrace.core.event import Action, Event
from millrace.core.fleet import ANSWERING
from millrace.core.histogram import Histogram
from millrace.core.memory_tiers import Tier
from millrace.core.outcome import Measured, Outcome, Tally
from millrace.core.overflow import OverflowGuard
from millrace.core.request import Slo
from millrace.core.stats import Summary
from millrace.simulate.bill import MeteredLockstep, MeteredServer, bill
from millrace.simulate.cache_pool import PooledServer, PooledWorld
from millrace.simulate.encoding import EncodeServer, SeeingServer, SeeingWorld
from millrace.simulate.engine import Engine, ServerSpec
from millrace.simulate.gaps import Gaps
from millrace.simulate.guarded import Guarded
from millrace.simulate.handover import SplitWorld
from millrace.simulate.job import Job
from millrace.simulate.lanes import Observed, Watch
from millrace.simulate.links import Carried
from millrace.simulate.lockstep import Lockstep
from millrace.simulate.moving import MovingWorld
from millrace.simulate.occupancy import Occupancy, Occupied
from millrace.simulate.server import Server
from millrace.simulate.sessions import Sessions
from millrace.simulate.surroundings import Surroundings
from millrace.simulate.telling import Teller, in_blocks, tellers
from millrace.simulate.ties import Ties, Watcher
from millrace.simulate.world import World

T = TypeVar("T")


class Simulation(Struct, frozen=True, kw_only=True):
    """How a policy did: the summary, virtual and real seconds, and every outcome if they were kept.

    `itl_s` is of the gaps between any two tokens of a request; None if there were none, or nobody asked, as
    with `occupancy`, which is how full the fleet was over time.
    """

    measured: Measured
    itl_s: Summary | None = None
    occupancy: Occupancy | None = None
    simulated_s: float
    wall_s: float
    kept: list[Outcome] | None = None

    @property
    def outcomes(self) -> list[Outcome]:
        """Every outcome in order of ending. Raises ValueError if they were not kept."""
        if self.kept is None:
            raise ValueError("the outcomes were not kept; simulate with keep_outcomes=True")
        return self.kept


def simulate(
    jobs: Iterable[Job] | Sessions,
    fleet: Sequence[ServerSpec],
    controller: Controller,
    batching: BatchingPolicy,
    *,
    slo: Slo | None = None,
    surroundings: Surroundings | None = None,
    guard: OverflowGuard | None = None,
    log: Callable[[bytes], object] | None = None,
    progress: Callable[[Outcome], None] | None = None,
    runs: Watch | None = None,
    transfers: Carried | None = None,
    leaping: bool = True,
    metered: bool = False,
    itl: bool = False,
    occupancy: bool = False,
    keep_outcomes: bool = True,
) -> Simulation:
    """Run the jobs, or the conversations, through a fleet in virtual time.

    `controller` and `guard` must be fresh. `log` is given each line of the event log, `progress` each
    outcome, `runs` each run of steps of an engine, `transfers` each KV cache that was handed over. Jobs may
    come from a generator; without `keep_outcomes`, memory grows by 24 bytes per request only.
    Dollars are of all replicas' hours, known where all prices are; joules are added up if `metered`,
    inter-token gaps if `itl`, and what is in use of the fleet if `occupancy`. To a controller that believes
    KV events engines tell of their prefix caches; it knows prompts in blocks of their size.
    The same arguments give the same outcomes and the same log, byte for byte. With `leaping` off, every
    iteration is stepped through: slower by far, and the oracle that the leaps are held to.
    """
    began_s = time.perf_counter()
    tally = Tally(slo or Slo())
    outcomes: list[Outcome] = []
    pool = surroundings.pool if surroundings else None
    make = _pooled if pool else partial(_engine, metered=metered)
    engines = [make(spec, informed(batching, spec.cost), leaping, _longest(surroundings)) for spec in fleet]
    counting = list(_counting(engines)) if itl else []
    occupied = Occupied(fleet) if occupancy else None
    admit, learn = Guarded(guard).ways if guard else (None, None)
    speaking, known = _speaking(engines, controller)
    ties = Ties(
        finish=_all_of(tally.add, outcomes.append if keep_outcomes else None, progress, learn),
        admit=admit,
        watch=_writer(controller, log) if log else None,
        follow=(lambda done: known(jobs.after(done))) if isinstance(jobs, Sessions) else None,
        tellers=speaking,
    )
    seen = _observed(engines, runs, occupied.tell if occupied else None)
    world = _world(engines, transfers, controller, pool=pool)(controller, seen, ties, surroundings)
    with _rare_collections():
        world.run(known(jobs))
    spent = bill(engines, world.presence, world.ended_s)
    return Simulation(
        measured=tally.measured(energy_j=spent.energy_j, cost_usd=spent.cost_usd),
        itl_s=_merged(counting),
        occupancy=occupied.occupancy(world.ended_s) if occupied else None,
        simulated_s=world.ended_s,
        wall_s=time.perf_counter() - began_s,
        kept=outcomes if keep_outcomes else None,
    )


def _world(
    engines: Sequence[Server | Lockstep | EncodeServer],
    transfers: Carried | None,
    controller: Controller,
    *,
    pool: Tier | None,
) -> Callable[..., World]:
    """Return what makes the world: one that carries KV caches only if prompts are computed for others, or
    requests may move.
    """
    splits = getattr(controller.routing, "splits", False)
    moving = controller.migration is not None or controller.settings.leaving is not UNSET
    apart = any(engine.spec.role in ("prefill", "encode") for engine in engines)
    if not (moving or splits or pool or apart):
        return World
    answered = {model for one in engines if one.spec.role in ANSWERING for model in one.spec.models}
    if alone := {model for one in engines for model in one.spec.models} - answered:
        raise ValueError(f"prompts of {min(alone)} are computed, but nobody answers: add a role=decode")
    splitting = {engine.id: engine for engine in engines}
    if any(isinstance(engine, EncodeServer) for engine in engines):
        if moving:
            raise ValueError("with replicas that only encode no request moves yet: leave out the migration")
        return partial(SeeingWorld, splitting=splitting, carried=transfers)
    if pool:
        if moving:
            raise ValueError("with a cache pool no request moves yet: leave out the migration policy")
        serving = {engine.id: engine for engine in engines if isinstance(engine, PooledServer)}
        return partial(PooledWorld, splitting=splitting, serving=serving, pool=pool, carried=transfers)
    if not moving:
        return partial(SplitWorld, splitting=splitting, carried=transfers)
    alone_of = {engine.id: engine for engine in engines if isinstance(engine, Server)}
    if len(alone_of) < len(engines):
        raise ValueError("requests do not move between engines of several ranks: leave out ep, or migration")
    return partial(MovingWorld, splitting=splitting, moving=alone_of, carried=transfers)


def _longest(surroundings: Surroundings | None) -> int:
    """Engines that share a machine change each other's pace at every step, so no two steps are alike."""
    return 1 if surroundings is not None and surroundings.slowdowns else ENDLESS


def _observed(engines: Sequence[Engine], *watches: Watch | None) -> Sequence[Engine]:
    """Return the engines, or ones that tell their runs to these watches, if there are any."""
    return [Observed(engine, _all_of(*watches)) for engine in engines] if any(watches) else engines


def _speaking(
    engines: Sequence[Server | Lockstep | EncodeServer], controller: Controller
) -> tuple[dict[str, Teller], Callable[[Iterable[Job]], Iterator[Job]]]:
    """Return who tells of prefix caches, if the controller believes that, and how it knows prompts then."""
    if controller.settings.prefix_knowledge != "events":
        return {}, iter
    telling, block_tokens = tellers(engines)
    return telling, partial(map, partial(in_blocks, block_tokens=block_tokens))


def _all_of(*listeners: Callable[[T], object] | None) -> Callable[[T], object]:
    """Return what tells all of these that are there, without a detour if it is one."""
    known = [listener for listener in listeners if listener]
    if len(known) == 1:
        return known[0]

    def tell(news: T) -> None:
        for listener in known:
            listener(news)

    return tell


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for cycles less often: requests make none, and looking takes a tenth of the time."""
    usual = gc.get_threshold()
    gc.set_threshold(max(usual[0], 100_000) if usual[0] else 0, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _engine(
    spec: ServerSpec, batching: BatchingPolicy, leaping: bool, longest: int, *, metered: bool
) -> Server | Lockstep | EncodeServer:
    if spec.encoder and (metered or spec.ranks > 1):
        raise ValueError(f"{spec.id} has an encoder: its energy is not known, nor how ranks would share it")
    if spec.spec.role == "encode":
        return EncodeServer(spec)
    if spec.encoder:
        return SeeingServer(spec, batching, leaping=leaping, longest=longest)
    if spec.ranks > 1:
        return (MeteredLockstep if metered else Lockstep)(spec, batching)
    return (MeteredServer if metered else Server)(spec, batching, leaping=leaping, longest=longest)


def _pooled(spec: ServerSpec, batching: BatchingPolicy, leaping: bool, longest: int) -> PooledServer:
    if spec.encoder or spec.ranks > 1 or spec.spec.role == "encode":
        raise ValueError(f"{spec.id} cannot share a cache pool: engines of one rank do, which read text only")
    return PooledServer(spec, batching, leaping=leaping, longest=longest)


def _counting(engines: Iterable[Server | Lockstep | EncodeServer]) -> Iterator[Gaps]:
    """Let engines, or each of their ranks, count inter-token gaps."""
    for engine in engines:
        if isinstance(engine, EncodeServer):
            continue
        for server in engine.ranks if isinstance(engine, Lockstep) else [engine]:
            server.gaps = Gaps()
            yield server.gaps


def _merged(counted: Iterable[Gaps]) -> Summary | None:
    every = Histogram()
    for gaps in counted:
        every.merge(gaps.seen)
    return every.summary()


def _writer(controller: Controller, log: Callable[[bytes], object]) -> Watcher:
    log(header(controller, world="simulated"))

    def watch(event: Event, actions: list[Action]) -> None:
        log(entry(event, actions))

    return watch
