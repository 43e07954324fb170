"""The demo's requests: as bytes for the live fleet, as jobs for the simulated one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat

from msgspec.structs import replace

from millrace.bench.demo.settings import MODEL, TRACE, DemoSettings
from millrace.bench.prompts import Planned, Shape, shape
from millrace.core.prompt import Measure, describe
from millrace.data import open_trace
from millrace.simulate import Job

VOCAB_TOKENS = 4096
PROBE_TOKENS = 16
PROBE_GAP_S = 0.1
_MEASURE = Measure()


def plan(settings: DemoSettings) -> list[Planned]:
    """Return the slice of the trace, scaled to the demo model and with shared prefixes."""
    return shape(open_trace(TRACE), _form(settings))


def measuring(settings: DemoSettings) -> list[Planned]:
    """Return a load for one engine alone, from another part of the trace and with other prompts.

    It goes from one request at a time over a steady rate to bursts, so that batches of all sizes are seen.
    """
    calm, steady, bursts, burst = 24, 40, 5, 12
    count = calm + steady + bursts * burst
    form = replace(_form(settings), seed=settings.seed + 1, requests=count, from_s=0.0, groups=40)
    due_s = [
        *accumulate(repeat(0.25, calm)),
        *accumulate(repeat(0.1, steady), initial=calm * 0.25 + 0.5),
    ][: calm + steady]
    due_s += [due_s[-1] + 1.0 + 2.0 * n for n in range(bursts) for _ in range(burst)]
    planned = zip(shape(open_trace(TRACE), form), due_s, strict=True)
    return [replace(one, id=f"measure-{one.id}", scheduled_s=t_s) for one, t_s in planned]


def crowding(settings: DemoSettings) -> list[Planned]:
    """Return a load for the whole fleet, busier than the slice, from yet another part of the trace."""
    form = replace(_form(settings), seed=settings.seed + 3, requests=110, from_s=2400.0, speed=1.5)
    return [
        replace(one, id=f"crowd-{one.id}", scheduled_s=one.scheduled_s * 0.7)
        for one in shape(open_trace(TRACE), form)
    ]


def probes(settings: DemoSettings, name: str, requests: int) -> list[Planned]:
    """Return short requests that share nothing, so far apart that each finds the fleet idle."""
    form = replace(
        _form(settings),
        seed=settings.seed + 2,
        requests=requests,
        shared_part=0.0,
        input_max_tokens=PROBE_TOKENS,
        output_min_tokens=2,
        output_max_tokens=2,
    )
    planned = enumerate(shape(open_trace(TRACE), form))
    return [replace(one, id=f"{name}-{n}", scheduled_s=n * PROBE_GAP_S) for n, one in planned]


def _form(settings: DemoSettings) -> Shape:
    return Shape(
        model=MODEL,
        vocab_tokens=VOCAB_TOKENS,
        seed=settings.seed,
        requests=settings.requests,
        from_s=settings.from_s,
        speed=settings.speed,
        input_divisor=2.5,
        groups=24,
        skew=0.6,
        prefix_min_tokens=256,
        prefix_max_tokens=640,
        shared_part=0.9,
    )


def jobs(planned: Sequence[Planned]) -> list[Job]:
    """Return the same requests for the simulator: described by the very function the gateway uses."""
    return [_job(one) for one in planned]


def _job(one: Planned) -> Job:
    return Job(
        t_s=one.scheduled_s,
        request=describe(one.body, "text", id=one.id, measure=_MEASURE).request,
        prompt_tokens=len(one.prompt),
        output_tokens=one.max_tokens,
        blocks=one.blocks,
        block_tokens=one.block_tokens,
    )
