"""The demo's requests: as bytes for the live fleet, as jobs for the simulated one."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from millrace.bench.demo.settings import MODEL, TRACE, DemoSettings
from millrace.bench.prompts import Planned, Shape, shape
from millrace.core.draw import draw
from millrace.core.prompt import Measure, describe
from millrace.data import open_trace
from millrace.simulate import Job

# Token ids of a plan are drawn from a span of this width; plans whose spans begin elsewhere share no prompt.
_FIRST_TOKEN, _SPAN_TOKENS = 256, 3584
_SHIFTS = 256
PROBE_TOKENS = 16
PROBE_GAP_S = 0.1
REHEARSED = 30
_MEASURE = Measure()


def plan(settings: DemoSettings, number: int = 0) -> list[Planned]:
    """Return the slice of the trace, scaled to the demo model and with shared prefixes.

    Other numbers up to 255 give other prompts of the same lengths, in the same groups, at the same times.
    """
    return shape(open_trace(TRACE), _form(settings, number))


def rehearsal(settings: DemoSettings, number: int = 0) -> list[Planned]:
    """Return a load much like the slice, from another part of the trace and with other prompts.

    It is about as busy: in a busier one, steps take longer for reasons that no price tells apart.
    """
    form = replace(_form(settings, number), seed=settings.seed + 3, from_s=3000.0, requests=REHEARSED)
    return [replace(one, id=f"rehearsal-{number}-{one.id}") for one in shape(open_trace(TRACE), form)]


def warming(settings: DemoSettings, requests: int) -> list[Planned]:
    """Return short requests that share nothing, so far apart that each finds the engine idle."""
    form = replace(
        _form(settings, 0),
        seed=settings.seed + 2,
        requests=requests,
        shared_part=0.0,
        input_max_tokens=PROBE_TOKENS,
        output_min_tokens=2,
        output_max_tokens=2,
    )
    planned = enumerate(shape(open_trace(TRACE), form))
    return [replace(one, id=f"warming-{n}", scheduled_s=n * PROBE_GAP_S) for n, one in planned]


def _form(settings: DemoSettings, number: int) -> Shape:
    first_token = _FIRST_TOKEN + number % _SHIFTS
    return Shape(
        model=MODEL,
        first_token=first_token,
        vocab_tokens=first_token + _SPAN_TOKENS,
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


class Answered(Job, frozen=True, kw_only=True):
    """A job of an engine that keeps what it generates in its prefix cache too, as ours does.

    Nobody asks for it again, but it takes the place of prompts that somebody would have.
    """

    def engine_blocks(self, block_tokens: int) -> list[int]:
        """Return the hashes of the prompt's blocks, and of those that its answer will fill."""
        prompt = super().engine_blocks(block_tokens)
        filled = (self.prompt_tokens + self.output_tokens) // block_tokens
        return prompt + [draw("answer", self.request.id, n) for n in range(len(prompt), filled)]


def jobs(planned: Sequence[Planned]) -> list[Answered]:
    """Return the same requests for the simulator: described by the very function the gateway uses."""
    return [_job(one) for one in planned]


def _job(one: Planned) -> Answered:
    return Answered(
        t_s=one.scheduled_s,
        request=describe(one.body, "text", id=one.id, measure=_MEASURE).request,
        prompt_tokens=len(one.prompt),
        output_tokens=one.max_tokens,
        blocks=one.blocks,
        block_tokens=one.block_tokens,
    )
