"""All runs of one command: each policy with each seed, and at shorter and longer steps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace
from rich.progress import Progress, TaskID

from millrace.cli.options import names_of
from millrace.cli.output import counting_bar
from millrace.cli.simulating.scenario import Scenario
from millrace.cli.simulating.task import Task, carry_out
from millrace.core.outcome import Outcome
from millrace.simulate import Simulation
from millrace.simulate.repeat import spread

STEP_SCALES = (0.9, 1.1)
_NUMBER = re.compile(r"\d+")
_MOST_KINDS = 3


class Ran(Struct, frozen=True):
    """A task and what came of it."""

    task: Task
    found: Simulation

    @property
    def is_main(self) -> bool:
        """Whether it is the trace itself at the cost model's own prices."""
        return self.task.seed == 0 and self.task.step_scale == 1


def tasks_of(
    scenario: Scenario,
    policies: Sequence[str],
    *,
    repeat: int,
    sensitivity: bool,
    log: Path | None,
    lanes: Path | None,
    report: Path | None,
) -> Iterator[Task]:
    """Yield every run that is wanted, policy by policy; only main runs write files or are reported."""
    batchings = names_of(scenario.batching)
    compared = batchings if len(batchings) > 1 else [None]
    every = [Task(scenario=scenario, policy=name, batching=one) for name in policies for one in compared]
    for task in every:
        suffix = task.label if len(every) > 1 else None
        yield replace(task, log=named(log, suffix), lanes=named(lanes, suffix), watched=report is not None)
        for seed in range(1, repeat):
            yield replace(task, seed=seed)
        for scale in STEP_SCALES if sensitivity else ():
            yield replace(task, step_scale=scale)


def run_all(tasks: Sequence[Task], *, processes: int, quiet: bool = False) -> list[Ran]:
    """Carry out the tasks; a bar shows requests of each, or runs if there are several processes."""
    with counting_bar(transient=True, quiet=quiet) as bar:
        if processes == 1:
            return [Ran(task, _watched(bar, task)) for task in tasks]
        count = bar.add_task("runs", total=len(tasks))
        found = []
        for task, simulation in zip(tasks, spread(carry_out, tasks, processes=processes), strict=True):
            found.append(Ran(task, simulation))
            bar.advance(count)
        return found


def notes(every: Sequence[Ran], scenario: Scenario) -> Iterator[str]:
    """Yield what a person should know of the runs: who did not complete and why, and what never happened."""
    for ran in every:
        if ran.is_main:
            yield from _unanswered(ran)
            yield from _idle(ran, scenario)
    longest_s = max(ran.found.simulated_s for ran in every)
    late = [fault for fault in scenario.surroundings.faults if fault.at_s > longest_s]
    for fault in late[:1]:
        yield (
            f"the last request ended at {longest_s:,.1f} s: {len(late)} faults never happened, like "
            f"{fault.deed} {fault.replica} at {fault.at_s:g}s"
        )


def _unanswered(ran: Ran) -> Iterator[str]:
    """Yield how many requests met each kind of error; errors that differ in numbers only are of a kind."""
    errors = [outcome.error for outcome in ran.found.outcomes if outcome.error]
    kinds = Counter(_NUMBER.sub("", error) for error in errors)
    for kind, count in kinds.most_common(_MOST_KINDS):
        example = next(error for error in errors if _NUMBER.sub("", error) == kind)
        yield f"{ran.task.label}: {count:,} requests did not complete: {example}"


def _idle(ran: Ran, scenario: Scenario) -> Iterator[str]:
    """Yield whether replicas were there to compute prompts or encode for others, and nobody let them."""
    if any(outcome.prefilled_on for outcome in ran.found.outcomes):
        return
    roles = {group.role for group in scenario.groups}
    if "prefill" in roles:
        yield f"{ran.task.label}: no prompt went to a replica with role=prefill; try --routing disaggregated"
    if "encode" in roles and scenario.images:
        yield f"{ran.task.label}: no image went to a replica with role=encode; try --routing elasticmm"


def named(path: Path | None, name: str | None) -> Path | None:
    """Return the path with the policy's name in it."""
    return path.with_name(f"{path.stem}-{name}{path.suffix}") if path and name else path


def _watched(bar: Progress, task: Task) -> Simulation:
    count = bar.add_task(task.label, total=len(task.scenario.records))
    return carry_out(task, partial(_advance, bar, count))


def _advance(bar: Progress, task: TaskID, _: Outcome) -> None:
    bar.advance(task)
