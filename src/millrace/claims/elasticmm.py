"""Groups by modality, encoding apart and one prefix cache: TTFT 4.2x lower, and 3.2 to 4.5x the throughput.

1,500 requests of the Azure trace go to 8 replicas of Qwen3-32B on two H100 each, 30 % of them with an image
of 768 to 3,328 tokens, one of 1,000 by Zipf's law. The encoder is a vision transformer of 5.54 billion
parameters with four patches a token, as InternVL3.5-38B has it. In the coupled fleet, as in the engines that
the paper compares with, a step waits for the images of its prompts, of which nothing is kept. Against it
stand seven replicas with one that only encodes, under `elasticmm`, with one prefix cache for images and text.
In time is a first token within 1 s and 60 ms for each further one.

An encoder priced by its products alone (cheap) is a small part of all work; the limits are for one that takes
four times as long, since resizing pictures and small kernels are not priced (assumed). What the parts are
worth is printed beside: the coupled fleet with the same cache. All of the gain is the cache's: a replica that
only encodes is an eighth of this fleet, more than its work is, so it costs more than it spares. Groups
without one help where encoding is most of the work, at eight times the price (dear). Stages that share the
devices of a replica, as in the paper, are not modelled.

Source: Liu et al., ElasticMM: Efficient Multimodal LLMs Serving with Elastic Multimodal Parallelism,
arXiv:2507.10069.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from msgspec.structs import replace

from millrace.claims import Check, Kind
from millrace.control import Controller, ControlSettings
from millrace.core.catalogue import device
from millrace.core.cost.encode import Encoder, encoder_on
from millrace.core.draw import draw
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import measure as measured_of
from millrace.core.request import Slo
from millrace.core.trace import scale_rate
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import ServerSpec, servers, simulate
from millrace.simulate.job import Job, jobs_of
from millrace.simulate.media import Images, with_images

KIND: Kind = "simulated"
FLEET = "8x h100 qwen3-32b tp=2"
REQUESTS = 1500
IMAGES = Images(share=0.3, sizes_tokens=(768, 1792, 3328), distinct=1000)
PRICED = encoder_on(device("h100"), parameters=5.54e9, patches_per_token=4, hidden=5120, devices=2)
SLO = Slo(ttft_s=1.0, tpot_s=0.06)
PACE = 7.0


class Found(NamedTuple):
    """Seconds of the 95th percentile until the first token, by kind; shares in time and of prompts cached."""

    text_s: float
    image_s: float
    in_time: float
    cached: float


def measure() -> list[Check]:
    """Simulate the coupled fleet and the divided one, and what lies between, for three prices of encoding."""
    coupled, cached, divided = (run(4.0, PACE, *how) for how in WAYS)
    cheap, cheap_divided = run(1.0, PACE, *WAYS[0]), run(1.0, PACE, *WAYS[2])
    dear, dear_grouped = run(8.0, 6.0, *WAYS[1]), run(8.0, 6.0, "elasticmm", 0, True)
    return [
        *_gains("coupled", coupled, divided, text_at_least=2, in_time_at_least=1.5),
        Check(what="images, p95 TTFT, over coupled", value=coupled.image_s / divided.image_s, unit="x"),
        Check(what="cached share of prompts", value=100 * divided.cached, unit="%", at_least=5),
        *_gains("coupled with cache", cached, divided),
        *_gains("coupled, cheap", cheap, cheap_divided),
        *_gains("coupled with cache, groups alone, dear", dear, dear_grouped),
    ]


def _gains(
    over: str,
    before: Found,
    after: Found,
    *,
    text_at_least: float | None = None,
    in_time_at_least: float | None = None,
) -> list[Check]:
    sooner, more = before.text_s / after.text_s, after.in_time / before.in_time
    return [
        Check(what=f"text, p95 TTFT, over {over}", value=sooner, unit="x", at_least=text_at_least),
        Check(what=f"in time, over {over}", value=more, unit="x", at_least=in_time_at_least),
    ]


WAYS = (("least_work", 0, False), ("least_work", 0, True), ("elasticmm", 1, True))
"""A routing policy, how many replicas only encode, and whether anything is kept of images."""


def run(price: float, pace: float, routing: str, encoders: int, keeps: bool) -> Found:
    """Simulate the trace at this pace with encoders that take so many times what they are priced at."""
    groups = parse_fleet(FLEET)
    records = scale_rate(islice(open_trace("azure_conv_2023"), REQUESTS), pace)
    jobs = list(with_images(jobs_of(records, groups[0].model.name, Slo()), IMAGES))
    encoder = replace(PRICED, tokens_per_s=PRICED.tokens_per_s / price)
    done = simulate(
        jobs if keeps else unalike(jobs),
        list(_seeing(servers(groups), encoder, encoders)),
        Controller(load("routing", routing), load("queueing", "fcfs"), ControlSettings()),
        load("batching", "split_fuse"),
        slo=SLO,
    )
    seeing = {job.request.id for job in jobs if job.request.media}
    image = measured_of((one for one in done.outcomes if one.id in seeing), SLO).ttft_s
    text = measured_of((one for one in done.outcomes if one.id not in seeing), SLO).ttft_s
    assert text is not None, "texts were answered"
    assert image is not None, "images were answered"
    return Found(text.p95, image.p95, done.measured.slo_attainment, done.measured.cache_hit_ratio)


def unalike(jobs: Iterable[Job]) -> Iterator[Job]:
    """Make all images different, so that nothing of them can be found again."""
    for job in jobs:
        media = tuple(replace(one, key=draw(one.key, job.request.id)) for one in job.request.media)
        yield replace(job, blocks=(), request=replace(job.request, blocks=(), media=media))


def _seeing(fleet: list[ServerSpec], encoder: Encoder, encoders: int) -> Iterator[ServerSpec]:
    for number, server in enumerate(fleet):
        spec = server.spec
        if number < encoders:
            spec = replace(spec, role="encode", prefill_tokens_per_s=encoder.tokens_per_s)
        yield replace(server, encoder=encoder, spec=spec)
