"""Fleets described in a line: `8x a100-80g llama-3-8b, 2x h100 llama-3-70b tp=4 price=2.5`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.catalogue import DEVICES, MODELS
from millrace.core.cost import CostModel, Roofline
from millrace.core.cost.encode import Encoder
from millrace.core.cost.overlapping import Overlap, Overlapping
from millrace.core.cost.pipelined import Pipelined, check_stages
from millrace.core.cost.roofline import check_tensor_parallel
from millrace.core.device import DeviceSpec
from millrace.core.fleet_encoder import encoder_of
from millrace.core.fleet_words import dollars, overlap_of, role_of, switch, whole
from millrace.core.lora import adapter_bytes
from millrace.core.memory import kv_blocks
from millrace.core.model import ModelSpec
from millrace.core.presets import preset
from millrace.core.quantity import bytes_per_s, seconds
from millrace.core.replica import Limits, ReplicaSpec, Role
from millrace.core.speeds import (
    attended_s,
    context_s,
    decode_context_s,
    decode_sequence_s,
    decode_step_s,
    prefill_tokens_per_s,
)
from millrace.core.suggest import unknown

OPTIONS = (
    "tp",
    "pp",
    "ep",
    "price",
    "preset",
    "cold_start",
    "load_bandwidth",
    "prefix_caching",
    "async_scheduling",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "block_size",
    "kv_blocks",
    "role",
    "max_loras",
    "lora_load",
    "lora_rank",
    "overlap",
    "encode_speed",
    "encode_start",
    "encoder_params",
)


T = TypeVar("T")
_GROUP = re.compile(r"(?:(\d+)\s*x\s*)?(?!\d+x?\s)([^\s=]+)\s+([^\s=]+)((?:\s+\S+)*)")


class FleetGroup(Struct, frozen=True, kw_only=True):
    """`count` equal replicas; `price_per_h` is in dollars for one device.

    Each layer is split over `tensor_parallel` devices, the layers over `pipeline_parallel` stages of them.
    Of a model with experts there are `expert_parallel` ranks, which share the experts and nothing else: each
    has `limits` of its own.
    A replica that starts is ready after `cold_start_s`, or when it has read its weights at
    `load_bytes_per_s`; None is not said here. An engine that schedules `ahead` decides on a step while the
    one before it runs, and one with an `overlap` keeps several resources of its devices busy at once. One
    with an `encoder` takes media.
    """

    count: int
    device: DeviceSpec
    model: ModelSpec
    tensor_parallel: int
    limits: Limits
    price_per_h: float | None
    cold_start_s: float | None = None
    load_bytes_per_s: float | None = None
    pipeline_parallel: int = 1
    adapter_load_s: float | None = None
    role: Role = "both"
    expert_parallel: int = 1
    ahead: bool = False
    overlap: Overlap | None = None
    encoder: Encoder | None = None

    @property
    def roofline(self) -> Roofline:
        """The price of a replica's steps by its data sheet, on the devices of one stage or rank."""
        if self.overlap:
            return Overlapping(self.model, self.device, self.overlap, tensor_parallel=self.tensor_parallel)
        return Roofline(
            self.model,
            self.device,
            tensor_parallel=self.tensor_parallel,
            data_parallel=self.expert_parallel,
        )

    @property
    def devices(self) -> int:
        """Devices of a replica."""
        return self.tensor_parallel * self.pipeline_parallel * self.expert_parallel

    @property
    def idle_w(self) -> float | None:
        """Watts that all devices of a replica draw with nothing to do; None where that is not known."""
        idle_w = self.device.idle_w
        return None if idle_w is None else idle_w * self.devices

    def staged(self, cost: CostModel) -> CostModel:
        """Return the price of a replica's steps, given that on the devices of one stage."""
        stages, step_tokens = self.pipeline_parallel, self.limits.step_tokens
        if stages == 1:
            return cost
        return Pipelined(cost, self.model, self.device, stages=stages, step_tokens=step_tokens)

    def replica_spec(self, cost: CostModel | None = None) -> ReplicaSpec:
        """Describe a replica to the fleet, its speeds predicted by `cost`, or else by the roofline."""
        cost = cost or self.staged(self.roofline)
        stages = self.pipeline_parallel
        limits = replace(self.limits, step_tokens=self.limits.step_tokens * stages)  # a batch in every stage
        price = self.price_per_h
        encodes = self.encoder if self.role == "encode" else None
        return ReplicaSpec(
            models=(self.model.name,),
            device=self.device.name,
            tensor_parallel=self.tensor_parallel,
            pipeline_parallel=stages,
            expert_parallel=self.expert_parallel,
            limits=limits,
            prefill_tokens_per_s=encodes.tokens_per_s if encodes else prefill_tokens_per_s(cost, limits),
            decode_step_s=decode_step_s(cost, limits),
            attended_s=attended_s(cost, limits),
            context_s=context_s(cost, limits),
            decode_sequence_s=decode_sequence_s(cost, limits),
            decode_context_s=decode_context_s(cost, limits),
            adapter_load_s=self.adapter_load_s,
            role=self.role,
            price_per_h=None if price is None else price * self.devices,
        )


def parse_fleet(
    text: str, *, devices: Mapping[str, DeviceSpec] = DEVICES, models: Mapping[str, ModelSpec] = MODELS
) -> tuple[FleetGroup, ...]:
    """Read groups of `COUNTx DEVICE MODEL [OPTION=VALUE ...]`, separated by `,` or `+`.

    Options are tp (devices that share each layer), pp (stages that share the layers), ep (ranks that share
    the experts), price (dollars an hour for one device), preset (an engine whose defaults hold where no
    option says otherwise, like vllm-0.19), cold_start (until a replica that starts is ready, like 45s),
    load_bandwidth (at which it reads its weights, like 5GB/s; a cold_start wins), prefix_caching and
    async_scheduling (on or off) and vLLM's own max_num_seqs, max_num_batched_tokens, max_model_len,
    block_size and kv_blocks; without kv_blocks, as many are taken as fit, and without max_model_len the
    model's own up to 8,192, and without async_scheduling vLLM's presets have it on; max_loras (adapters on
    the device at a time), lora_load (how long a step waits for one, like 50ms) or else lora_rank, which says
    with load_bandwidth how long that is; role (both, prefill, decode or encode); overlap (nanoflow or
    tokenweave: how the engine keeps several resources of its devices busy at once); and for media
    encode_speed (tokens a second) or encoder_params (by the data sheet), and encode_start (before those of a
    prompt).
    Raises ValueError, naming the part that is wrong and the fix.
    """
    return tuple(_group(part.strip(), devices, models) for part in re.split("[,+]", text))


def members(groups: Sequence[FleetGroup]) -> list[tuple[str, FleetGroup]]:
    """Name every replica, `r0`, `r1` and so on, padded so that ids sort as they count; return its group."""
    return _numbered([group for group in groups for _ in range(group.count)])


def expand(groups: Sequence[FleetGroup]) -> dict[str, ReplicaSpec]:
    """Describe every replica by id, its speeds predicted by the roofline."""
    return dict(_numbered([spec for group in groups for spec in [group.replica_spec()] * group.count]))


def _numbered(replicas: list[T]) -> list[tuple[str, T]]:
    width = len(str(len(replicas) - 1))
    return [(f"r{index:0{width}d}", replica) for index, replica in enumerate(replicas)]


def _group(text: str, devices: Mapping[str, DeviceSpec], models: Mapping[str, ModelSpec]) -> FleetGroup:
    found = _GROUP.fullmatch(text)
    if not found:
        raise ValueError(f"cannot read the fleet {text!r}; write it like '8x a100-80g llama-3-8b tp=2'")
    count, device_name, model_name, options_text = found.groups()
    device, model = _named("device", device_name, devices), _named("model", model_name, models)
    options = _options(options_text)
    if options.get("role") == "encode":
        options.setdefault("kv_blocks", "1")  # it has neither the model's weights nor a KV cache
    tensor_parallel, stages = whole(options, "tp", 1), whole(options, "pp", 1)
    check_tensor_parallel(model, device, tensor_parallel)
    check_stages(model, device, stages)
    ranks = _ranks(options, model, device)
    group = FleetGroup(
        count=whole({"count": count or "1"}, "count", 1),
        device=device,
        model=model,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=stages,
        expert_parallel=ranks,
        limits=_limits(
            options, replace(model, experts=model.experts // ranks), device, (tensor_parallel, stages)
        ),
        price_per_h=dollars(options["price"]) if "price" in options else device.price_per_h,
        cold_start_s=seconds("cold_start", options["cold_start"]) if "cold_start" in options else None,
        load_bytes_per_s=bytes_per_s(options["load_bandwidth"]) if "load_bandwidth" in options else None,
        adapter_load_s=_adapter_load_s(options, model),
        role=role_of(options.get("role", "both")),
        encoder=encoder_of(options, model, device, devices=tensor_parallel * stages * ranks),
        ahead=switch(options, "async_scheduling", options.get("preset", "").startswith("vllm")),
        overlap=overlap_of(options),
    )
    _ = group.roofline  # complains of an overlap that is not priced
    return group


def _adapter_load_s(options: Mapping[str, str], model: ModelSpec) -> float | None:
    if ("lora_load" in options or "lora_rank" in options) and "max_loras" not in options:
        raise ValueError("lora_load and lora_rank are for adapters: say how many fit too, like max_loras=8")
    if "lora_load" in options:
        return seconds("lora_load", options["lora_load"])
    if "lora_rank" not in options:
        return None
    if "load_bandwidth" not in options:
        raise ValueError(
            "lora_rank says how large adapters are: say how they load too, like load_bandwidth=5GB/s"
        )
    return adapter_bytes(model, whole(options, "lora_rank", 1)) / bytes_per_s(options["load_bandwidth"])


def _ranks(options: Mapping[str, str], model: ModelSpec, device: DeviceSpec) -> int:
    ranks = whole(options, "ep", 1)
    if ranks > 1 and (not model.experts or model.experts % ranks):
        raise ValueError(f"ep is {ranks}; it must divide the {model.experts} experts of {model.name}")
    if ranks > 1 and "pp" in options:
        raise ValueError("pp and ep are not simulated together: split each layer by tp, and leave out pp")
    if ranks > 1 and device.link_bytes_per_s is None:
        raise ValueError(f"ep is {ranks}, but a {device.name} has no link to another: leave it out")
    return ranks


def _named(what: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise unknown(what, name, known)
    return known[name]


def _options(text: str) -> dict[str, str]:
    options = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if name not in OPTIONS:
            raise unknown("fleet option", name, OPTIONS)
        if not equals:
            raise ValueError(f"{name} has no value; write it like {name}=1")
        options[name] = value
    return options


def _limits(
    options: Mapping[str, str], model: ModelSpec, device: DeviceSpec, split: tuple[int, int]
) -> Limits:
    """What is not said is reckoned; `split` is over how many devices a layer is, and over how many stages."""
    default = preset(options["preset"], device) if "preset" in options else Limits()
    limits = Limits(
        step_tokens=whole(options, "max_num_batched_tokens", default.step_tokens),
        sequences=whole(options, "max_num_seqs", default.sequences),
        block_tokens=whole(options, "block_size", default.block_tokens),
        context_tokens=whole(options, "max_model_len", min(default.context_tokens, model.context_tokens)),
        prefix_caching=switch(options, "prefix_caching", default.prefix_caching),
        adapters=whole(options, "max_loras", 1) if "max_loras" in options else None,
    )
    fitting = 0 if "kv_blocks" in options else kv_blocks(model, device, split[0], limits, split[1])
    return replace(limits, kv_blocks=whole(options, "kv_blocks", fitting))
