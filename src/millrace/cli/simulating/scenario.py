"""What is simulated, as it was typed: small enough to send to another process, which builds it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any

from msgspec import UNSET, Struct
from msgspec.structs import asdict

from millrace.cli.knowing import control_fields_of
from millrace.cli.options import duration_s, read, slo_of
from millrace.cli.patience import BUDGET, PATIENCE
from millrace.cli.predicting import predicted
from millrace.cli.serving import in_options
from millrace.cli.simulating import models as naming
from millrace.cli.simulating import pools
from millrace.cli.simulating.meanwhile import giving, leaving_of, surroundings_of
from millrace.cli.simulating.pricing import Price, parse_profiles, powered, price_of
from millrace.cli.simulating.talks import altered, talks_of
from millrace.cli.waiting import rules_of
from millrace.control import Controller, ControlSettings, RetryBudget
from millrace.control.settings import PrefixKnowledge
from millrace.core.batch import BatchingPolicy
from millrace.core.cost import CostModel
from millrace.core.cost.energy import energy_source
from millrace.core.cost.scaled import scaled
from millrace.core.fleet_spec import FleetGroup, members, parse_fleet
from millrace.core.lora import spread_adapters
from millrace.core.quantity import bytes_per_s
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.core.trace.reshape import first, scale_lengths, scale_rate
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import Job, ServerSpec, Sessions, Surroundings, jobs_of, servers
from millrace.simulate.media import Images
from millrace.simulate.repeat import redraw_arrivals


class Scenario(Struct, frozen=True, kw_only=True, dict=True):
    """Trace, fleet and settings, all but the routing policy; each is read when it is first asked for."""

    trace: str
    fleet: str
    queueing: str = "fcfs"
    batching: str = "split_fuse"
    migration: str | None = None
    calibration: str | None = None
    profile: Sequence[str] | None = None
    slo: str = ""
    requests: int | None = None
    models: str | None = None
    rate: float = 1.0
    lengths: float = 1.0
    input_scale: float = 1.0
    output_scale: float = 1.0
    adapters: int | None = None
    media: str | None = None
    cache_pool: str | None = None
    closed_loop: bool = False
    think: str | None = None
    max_attempts: int = PATIENCE.max_attempts
    retry_ratio: float = BUDGET.ratio
    retry_reserve: int = BUDGET.reserve
    retry_floor: float = BUDGET.floor_per_s
    max_held: int = PATIENCE.max_held
    max_hold_s: float = PATIENCE.max_hold_s
    max_waiting: int | None = None
    prefix_knowledge: PrefixKnowledge = "answers"
    prefix_ttl: float | None = None
    prefix_index_bytes: int = PATIENCE.prefix_index_bytes
    block_tokens: int | None = None
    queue_rule: Sequence[str] | None = None
    faults: str | None = None
    failover: str = "off"
    cold_start: str | None = None
    load_bandwidth: str | None = None
    scrape: str | None = None
    network: str | None = None
    slowdowns: str | None = None
    link: str | None = None
    energy: bool = False
    itl: bool = False
    log_scores: bool = False
    predictor: str | None = None

    def __reduce__(self) -> tuple[Callable[..., Scenario], tuple[Any, ...]]:
        """Leave behind what was read."""
        return _again, tuple(getattr(self, name) for name in self.__struct_fields__)

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, by name."""
        return {name: v for name in self.__struct_fields__ if (v := getattr(self, name)) is not None}

    @cached_property
    def groups(self) -> tuple[FleetGroup, ...]:
        """The fleet's groups."""
        return tuple(parse_fleet(self.fleet))

    @property
    def served(self) -> tuple[str, ...]:
        """The models of the fleet, in its order; requests that name none ask for the first."""
        return tuple(dict.fromkeys(group.model.name for group in self.groups))

    @cached_property
    def objectives(self) -> Slo:
        """The objectives of requests that have none of their own."""
        return slo_of(self.slo)

    @cached_property
    def naming(self) -> naming.Models:
        """Which model each request asks for."""
        return naming.parse_models(self.models, self.served) if self.models else naming.Models()

    @cached_property
    def images(self) -> Images | None:
        """What images requests have, if any."""
        return read("--media", pools.images_of, self.media)

    @cached_property
    def recorded(self) -> list[TraceRecord]:
        """The trace at its own pace, by time, all else reshaped."""
        records = scale_lengths(
            open_trace(self.trace),
            input_factor=self.lengths * self.input_scale,
            output_factor=self.lengths * self.output_scale,
        )
        kept = records if self.requests is None else first(records, self.requests)
        kept = kept if self.adapters is None else spread_adapters(kept, self.adapters)
        return sorted(kept, key=attrgetter("t_s"))

    @cached_property
    def records(self) -> list[TraceRecord]:
        """The reshaped trace, by time."""
        return list(scale_rate(naming.ask(self.recorded, self.naming, self.served[0]), self.rate))

    @cached_property
    def asked(self) -> dict[str, str]:
        """The model that each request asks for, by the request's id."""
        return {record.id: record.model or self.served[0] for record in self.records}

    @cached_property
    def surroundings(self) -> Surroundings:
        """What lies between the gateway and the fleet, and what happens to it."""
        return surroundings_of(
            network=self.network,
            scrape=self.scrape,
            slowdowns=self.slowdowns,
            link=self.link,
            cache_pool=self.cache_pool,
            faults=self.faults,
            failover=self.failover,
            replicas=[name for name, _ in members(self.groups)],
        )

    @cached_property
    def prices(self) -> list[Price]:
        """What prices the steps of each group."""
        profiles = parse_profiles(self.profile or (), self.groups)
        return [price_of(group, calibration=self.calibration, profiles=profiles) for group in self.groups]

    def notes(self) -> Iterator[str]:
        """Yield what a person should know before the results surprise them."""
        yield from naming.notes(self.recorded, self.naming, self.served)
        yield from pools.notes(self.groups, media=self.images is not None)
        if any(group.limits.adapters is None for group in self.groups) and any(
            record.adapter for record in self.recorded
        ):
            yield "requests name adapters, but not all of the fleet limits them: say max_loras in --fleet"
        started = any(fault.deed == "start" for fault in self.surroundings.faults)
        if (self.cold_start or self.load_bandwidth) and not started:
            yield "no replica starts in this run, so cold starts change nothing; start some with --faults"

    def jobs(self, *, seed: int = 0, speed: float = 1.0) -> list[Job]:
        """Return the requests, with arrivals of this seed, `speed` times as fast."""
        records = scale_rate(redraw_arrivals(self.records, seed), speed)
        jobs = jobs_of(records, self.served[0], self.objectives)
        return list(self._completed(jobs))

    def workload(self, *, seed: int = 0) -> list[Job] | Sessions:
        """Return the requests, or the conversations if their turns are to wait for each other."""
        if not self.closed_loop:
            return self.jobs(seed=seed)
        records = naming.ask(self.recorded, self.naming, self.served[0])
        think_s = read("--think", duration_s, self.think)
        talks = talks_of(records, self.objectives, think_s=think_s, rate=self.rate, seed=seed)
        return altered(talks, self._completed)

    def _completed(self, jobs: Iterable[Job]) -> Iterator[Job]:
        whole = pools.completed(jobs, images=self.images, block_tokens=self.block_tokens)
        return predicted(whole, self.predictor)

    def servers(self, step_scale: float = 1.0) -> list[ServerSpec]:
        """Return the fleet, each step priced at `step_scale` times the cost model's price."""

        def cost(group: FleetGroup) -> CostModel:
            exact: CostModel = self.prices[self.groups.index(group)].cost
            if self.energy:
                exact = powered(exact, group.roofline)
            return exact if step_scale == 1 else scaled(exact, step_scale)

        start_s = read("--cold-start", duration_s, self.cold_start)
        bandwidth = read("--load-bandwidth", bytes_per_s, self.load_bandwidth)
        made = servers(self.groups, cost, cold_start_s=start_s, load_bytes_per_s=bandwidth)
        return made if leaving_of(self.surroundings, self.groups) is UNSET else list(map(giving, made))

    def priced(self) -> dict[str, Price]:
        """Return what prices each model on each device, by `MODEL on DEVICE`."""
        return {
            f"{group.model.name} on {group.device.name}": price
            for group, price in zip(self.groups, self.prices, strict=True)
        }

    @property
    def energy_sources(self) -> dict[str, str]:
        """Where joules come from, by `MODEL on DEVICE`; empty if nobody asked for them."""
        return {
            f"{group.model.name} on {group.device.name}": energy_source(powered(price.cost, group.roofline))
            for group, price in (zip(self.groups, self.prices, strict=True) if self.energy else ())
        }

    def controller(self, routing: str) -> Controller:
        """Return a fresh controller."""
        migration = None if self.migration is None else load("migration", self.migration)
        queueing = load("queueing", self.queueing)
        return Controller(load("routing", routing), queueing, self.patience, migration=migration)

    @property
    def patience(self) -> ControlSettings:
        """What `millrace serve` does with the same options when engines fail or are busy."""
        with in_options():
            return ControlSettings(
                max_attempts=self.max_attempts,
                max_held=self.max_held,
                max_hold_s=self.max_hold_s,
                max_waiting=UNSET if self.max_waiting is None else self.max_waiting,
                log_scores=self.log_scores or UNSET,
                queue=rules_of(self.queue_rule),
                retry_budget=RetryBudget(
                    ratio=self.retry_ratio, reserve=self.retry_reserve, floor_per_s=self.retry_floor
                ),
                **control_fields_of(asdict(self)),
                leaving=leaving_of(self.surroundings, self.groups),
            )

    def batching_policy(self, name: str | None = None) -> BatchingPolicy:
        """Return a fresh batching policy: that of this name, or the only one that was asked for."""
        policy: BatchingPolicy = load("batching", name or self.batching)
        return policy


def _again(*fields: Any) -> Scenario:
    return Scenario(**dict(zip(Scenario.__struct_fields__, fields, strict=True)))
