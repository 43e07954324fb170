"""Paging tensors from shared remote memory saves up to 93 % of local memory and half of the devices.

GPT-3, Grok-1 and Qwen3-235B decode 32 sequences of 1,024 tokens on 8 H200, priced by the roofline; a layer's
weights and cache are one page, fetched in order into a buffer of two, and a validator checks that none is
used before it arrives. Printed is the least local memory at which a step takes at most 5 % longer, by remote
bandwidth. The claim holds only if local memory takes what arrives beside what is read: with the bandwidth of
today's HBM shared by both, next to nothing can be saved, which is printed as well. Devices are counted for 50
ms per token: how many it takes to hold the model, and how many are fast enough if pages come from remote
memory. An all-reduce through that memory, written and read once, is held against NCCL's as measured over 8
H100; small ones gain far less over the kernels that engines use today. Remote memory of up to 8 TB/s a device
and 1 us is assumed; the paper's 16x to 70x depends on such figures.

Source: Li et al., FengHuang: Next-Generation Memory Orchestration for AI Inferencing, arXiv:2511.10753.
"""

from __future__ import annotations

from itertools import pairwise

from millrace.claims import Check, Kind
from millrace.claims.measured import all_reduce
from millrace.core.catalogue import device
from millrace.core.cost import Collective, Roofline, StepShape, efficiency_of
from millrace.core.cost.collective import expected
from millrace.core.memory import UTILISATION
from millrace.core.memory_tiers import Tier
from millrace.core.model import ModelSpec
from millrace.core.paging import Page, Paging, least_local, mistakes

KIND: Kind = "modelled"
DEVICE = device("h200")
DEVICES = 8
SEQUENCES, CONTEXT_TOKENS = 32, 1024
LOSS = 0.05
TPOT_S = 0.05
BANDWIDTHS = (0.5e12, 1e12, 2e12, 4e12, 8e12)
MODELS = (
    ModelSpec(
        name="gpt-3",
        layers=96,
        hidden=12_288,
        heads=96,
        kv_heads=96,
        head_dim=128,
        ffn=32_768,  # as large as its two ungated products of width 49,152
        vocab=50_257,
        context_tokens=2_048,
        tied_embeddings=True,
        source="Brown et al., arXiv:2005.14165, table 2.1",
    ),
    ModelSpec(
        name="grok-1",
        layers=64,
        hidden=6144,
        heads=48,
        kv_heads=8,
        head_dim=128,
        ffn=32_768,
        vocab=131_072,
        context_tokens=8_192,
        experts=8,
        active_experts=2,
        expert_ffn=32_768,
        tied_embeddings=True,
        source="xai-org/grok-1, run.py",
    ),
    ModelSpec(
        name="qwen3-235b",
        layers=94,
        hidden=4096,
        heads=64,
        kv_heads=4,
        head_dim=128,
        ffn=12_288,
        vocab=151_936,
        context_tokens=40_960,
        experts=128,
        active_experts=8,
        expert_ffn=1536,
        qk_norm=True,
        source="config.json of Qwen/Qwen3-235B-A22B",
    ),
)


def measure() -> list[Check]:
    """Page three models at several bandwidths, count devices, and reduce through shared memory."""
    saved = {spec.name: [_saved(spec, bandwidth) for bandwidth in BANDWIDTHS] for spec in MODELS}
    widest = BANDWIDTHS[-1]
    measured = all_reduce("h100_dgx", DEVICES).fitted()
    own = expected(device("h100"), efficiency_of("h100"), DEVICES)
    return [
        Check(what="mistakes in schedules", value=sum(map(_mistakes, MODELS)), at_most=0),
        Check(what="models that need more at a higher bandwidth", value=_falling(saved), at_most=0),
        *(
            Check(
                what=f"local memory saved if arrivals are free, {name}, 4 TB/s",
                value=100 * shares[-2],
                unit="%",
            )
            for name, shares in saved.items()
        ),
        Check(
            what="local memory saved if arrivals are free, least, 8 TB/s",
            value=100 * min(shares[-1] for shares in saved.values()),
            unit="%",
            at_least=80,
        ),
        Check(
            what="local memory saved if arrivals share its bandwidth, most, 8 TB/s",
            value=100 * max(_saved(spec, widest, shared=True) for spec in MODELS),
            unit="%",
        ),
        Check(
            what="devices saved at 50 ms a token, most",
            value=100 * max(map(_devices_saved, MODELS)),
            unit="%",
            at_least=50,
        ),
        Check(
            what="all-reduce through 8 TB/s against NCCL, least",
            value=min(_all_reduce_gains(measured)),
            unit="x",
            at_least=10,
        ),
        Check(what="against NCCL, most", value=max(_all_reduce_gains(measured)), unit="x"),
        Check(what="against an engine's own kernel, least", value=min(_all_reduce_gains(own)), unit="x"),
    ]


def remote(bytes_per_s: float) -> Tier:
    """Return shared memory with this bandwidth for each device."""
    return Tier(
        name="shared", capacity_bytes=10e12, bytes_per_s=bytes_per_s, latency_s=1e-6, source="assumed"
    )


def pages_of(spec: ModelSpec, devices: int, *, shared: bool = False) -> list[Page]:
    """Return a page for each layer; with `shared`, arriving bytes cost local bandwidth as reading does."""
    size_bytes = _local_bytes(spec, devices) / spec.layers
    write_s = size_bytes / DEVICE.memory_bytes_per_s if shared else 0.0
    use_s = _step_s(spec, devices) / spec.layers
    return [Page(size_bytes=size_bytes, use_s=use_s, write_s=write_s)] * spec.layers


def _local_bytes(spec: ModelSpec, devices: int) -> float:
    cached = spec.kv_bytes_per_token_each(devices) * SEQUENCES * CONTEXT_TOKENS
    return spec.weight_bytes / devices + cached


def _step_s(spec: ModelSpec, devices: int) -> float:
    shape = StepShape(decodes=SEQUENCES, decode_context_tokens=SEQUENCES * CONTEXT_TOKENS, emits=SEQUENCES)
    return Roofline(spec, DEVICE, tensor_parallel=devices).step_s(shape)


def _paging(spec: ModelSpec, bandwidth: float, *, shared: bool = False) -> Paging:
    return least_local(pages_of(spec, DEVICES, shared=shared), remote(bandwidth), loss=LOSS)


def _saved(spec: ModelSpec, bandwidth: float, *, shared: bool = False) -> float:
    return 1 - _paging(spec, bandwidth, shared=shared).local_bytes / _local_bytes(spec, DEVICES)


def _falling(saved: dict[str, list[float]]) -> int:
    return sum(any(b < a for a, b in pairwise(shares)) for shares in saved.values())


def _mistakes(spec: ModelSpec) -> int:
    pages = pages_of(spec, DEVICES)
    return sum(len(mistakes(pages, _paging(spec, bandwidth))) for bandwidth in BANDWIDTHS)


def _devices_saved(spec: ModelSpec) -> float:
    """Fewer devices are enough if they are fast enough and need not hold the model; powers of two."""
    fast = next(n for n in (1, 2, 4, 8, 16) if _step_s(spec, n) <= TPOT_S)
    usable_bytes = UTILISATION * DEVICE.memory_bytes
    holding = next(n for n in (1, 2, 4, 8, 16) if _local_bytes(spec, n) <= usable_bytes)
    return 1 - fast / max(fast, holding)


def _all_reduce_gains(today: Collective) -> list[float]:
    """Every device adds its message to the shared one and reads the sum; 2 KiB to 64 MiB."""
    shared = remote(BANDWIDTHS[-1])
    return [today.all_reduce_s(size) / (2 * shared.move_s(size)) for size in (2 << 10, 256 << 10, 64 << 20)]
