"""Prefill, decode and cache in pools of their own: 1,943 tokens/s a device decoding at 50 ms a token.

The paper's two operating points of a device, 1,943 tokens/s at 50 ms and 538 at 15 ms, are put on a straight
line of sequences. Two points always lie on one: what is checked is that it makes sense, with a floor and a
slope above 0. From it and the paper's 6,688 prompt tokens/s follow the devices for five mixes of prompts and
answers, those of the shipped Azure and Mooncake traces and three made of them: in two pools, each as large as
its demand, or all doing both at once, where every device pays the floor of a decode step. The cache's pool is
priced for DeepSeek-V3: fetching a cached token from shared memory (100 GB/s and 5 us assumed, about a quarter
of the published link) against computing it. Minimum sizes of expert-parallel groups are left out.

That a shared cache is found wherever a request goes is simulated: the first 2,000 requests of the Mooncake
trace at twice its pace on 8 H100 with Llama-3-8B, with and without a pool of 1 TB for each device. Sent to
whoever has the fewest requests, which looks at no cache, they find in the pool what the fleet has computed.
What is computed is written to the pool behind the steps, and costs nothing. Where requests go matters all the
same: this project's own policy, which foresees waits and sends by cache, has the lower mean without a pool.

Source: Zuo et al., Serving Large Language Models on Huawei CloudMatrix384, arXiv:2506.12708.
"""

from __future__ import annotations

from itertools import islice

from millrace.claims import Check, Kind
from millrace.control import Controller, ControlSettings
from millrace.core.catalogue import model
from millrace.core.fleet_spec import parse_fleet
from millrace.core.memory_tiers import Tier
from millrace.core.outcome import Measured
from millrace.core.pools import Demand, coupled, fit_device, pooled
from millrace.core.request import Slo
from millrace.core.stats import mean
from millrace.core.trace import scale_rate
from millrace.data import open_trace
from millrace.policies import load
from millrace.simulate import Surroundings, servers, simulate
from millrace.simulate.job import jobs_of

KIND: Kind = "simulated"
POINTS = ((0.050, 1943.0), (0.015, 538.0))
PREFILL_TOKENS_PER_S = 6688.0
TIGHT_S = 0.020
REQUESTS_PER_S = 100
FABRIC = Tier(name="shared cache", capacity_bytes=8e12, bytes_per_s=100e9, latency_s=5e-6, source="assumed")
HIT_TOKENS = 4096
FLEET = "8x h100 llama-3-8b max_model_len=131072"
REQUESTS = 2000
PACE = 2.0


def measure() -> list[Check]:
    """Fit the device, size both kinds of fleet for every mix, and price the cache."""
    device = fit_device(POINTS, PREFILL_TOKENS_PER_S)
    sizes = [(pooled(mix, device, 0.05), coupled(mix, device, 0.05)) for mix in mixes()]
    tight = [(pooled(mix, device, TIGHT_S), coupled(mix, device, TIGHT_S)) for mix in mixes()]
    bare, pooled_run, near = run("least_request"), run("least_request", FABRIC), run("millrace")
    gain, level = (_mean_s(other) / _mean_s(pooled_run) for other in (bare, near))
    fetch_s = FABRIC.move_s(HIT_TOKENS * model("deepseek-v3").kv_bytes_per_token)
    return [
        Check(what="floor of a decode step", value=1e3 * device.floor_s, unit=" ms", at_least=1),
        Check(what="each sequence adds", value=1e3 * device.per_sequence_s, unit=" ms", at_least=0.01),
        Check(
            what="largest gap to an operating point",
            value=100 * max(abs(device.step_s(s * rate) / s - 1) for s, rate in POINTS),
            unit="%",
            at_most=5,
        ),
        Check(what="mixes in which pools need more", value=sum(a > b for a, b in sizes), at_most=0),
        Check(what="mixes in which pools need fewer", value=sum(a < b for a, b in sizes), at_least=3),
        Check(
            what="devices, one fleet over pools, most at 50 ms", value=max(b / a for a, b in sizes), unit="x"
        ),
        Check(
            what="devices, one fleet over pools, most at 20 ms", value=max(b / a for a, b in tight), unit="x"
        ),
        Check(
            what="fetching cached tokens, share of computing them",
            value=100 * fetch_s / (HIT_TOKENS / PREFILL_TOKENS_PER_S),
            unit="%",
            at_most=5,
        ),
        Check(what="cached share of prompts, no pool", value=100 * bare.cache_hit_ratio, unit="%"),
        Check(what="cached share, sent by cache, no pool", value=100 * near.cache_hit_ratio, unit="%"),
        Check(
            what="cached share, sent anywhere, pool over none",
            value=pooled_run.cache_hit_ratio / bare.cache_hit_ratio,
            unit="x",
            at_least=2,
        ),
        Check(what="mean TTFT, sent anywhere, no pool over pool", value=gain, unit="x", at_least=1.2),
        Check(what="mean TTFT, by cache and no pool over anywhere and pool", value=level, unit="x"),
    ]


def run(routing: str, pool: Tier | None = None) -> Measured:
    """Simulate the trace under a routing policy, with a pool for caches or without."""
    groups = parse_fleet(FLEET)
    records = scale_rate(islice(open_trace("mooncake_conversation"), REQUESTS), PACE)
    return simulate(
        jobs_of(records, groups[0].model.name, Slo()),
        servers(groups),
        Controller(load("routing", routing), load("queueing", "fcfs"), ControlSettings()),
        load("batching", "split_fuse"),
        surroundings=Surroundings(pool=pool),
        keep_outcomes=False,
    ).measured


def _mean_s(measured: Measured) -> float:
    assert measured.ttft_s is not None, "requests were answered"
    return measured.ttft_s.mean


def mixes() -> list[Demand]:
    """Return what 100 requests a second ask for: two recorded mixes, and three with other lengths."""
    azure, mooncake = (_means(name) for name in ("azure_conv_2023", "mooncake_conversation"))
    prompt, answer = azure
    lengths = [azure, mooncake, (4 * prompt, answer / 4), (prompt / 4, 4 * answer), (prompt, prompt)]
    return [
        Demand(prompt_tokens_per_s=a * REQUESTS_PER_S, answer_tokens_per_s=b * REQUESTS_PER_S)
        for a, b in lengths
    ]


def _means(trace: str) -> tuple[float, float]:
    records = list(open_trace(trace))
    return mean(r.input_tokens for r in records), mean(r.output_tokens for r in records)
