from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import DEVICES, MODELS, device, model
from millrace.core.cost import Linear, StepShape
from millrace.core.fleet_spec import expand, members, parse_fleet
from millrace.core.memory import kv_blocks
from millrace.core.quantity import bytes_per_s
from millrace.core.replica import Limits


def test_a_fleet_is_a_count_a_device_and_a_model() -> None:
    (group,) = parse_fleet("8x a100-80g llama-3-8b")
    assert (group.count, group.device, group.model) == (8, device("a100-80g"), model("llama-3-8b"))
    assert (group.tensor_parallel, group.price_per_h) == (1, 1.79)
    fitting = kv_blocks(group.model, group.device, 1, Limits())
    assert group.limits == Limits(kv_blocks=fitting)


def test_groups_are_separated_by_commas_or_plus_signs() -> None:
    assert [g.count for g in parse_fleet("2x h100 demo, 3 x l40s demo+h200 demo")] == [2, 3, 1]


def test_options_are_vllms_own() -> None:
    (group,) = parse_fleet(
        "h100 llama-3-70b tp=4 price=2.5 max_num_seqs=64 max_num_batched_tokens=2048 max_model_len=4096 "
        "block_size=32 kv_blocks=100 prefix_caching=off"
    )
    assert group.limits == Limits(
        step_tokens=2048,
        sequences=64,
        kv_blocks=100,
        block_tokens=32,
        context_tokens=4096,
        prefix_caching=False,
    )
    assert (group.tensor_parallel, group.price_per_h) == (4, 2.5)
    assert group.replica_spec().price_per_h == 10.0


def test_a_group_may_say_how_long_its_replicas_take_to_start() -> None:
    said, computed, nothing = parse_fleet(
        "h100 demo cold_start=1.5m, h100 demo load_bandwidth=5GB/s, h100 demo"
    )
    assert (said.cold_start_s, said.load_bytes_per_s) == (90.0, None)
    assert (computed.cold_start_s, computed.load_bytes_per_s) == (None, 5e9)
    assert (nothing.cold_start_s, nothing.load_bytes_per_s) == (None, None)


@pytest.mark.parametrize(("text", "found"), [("5GB/s", 5e9), ("1.5 GiB/s", 1.5 * 2**30), ("800MB", 8e8)])
def test_bandwidths_are_written_with_their_unit(text: str, found: float) -> None:
    assert bytes_per_s(text) == found


def test_a_step_is_planned_ahead_where_vllm_does_so_by_itself_or_was_told_to() -> None:
    options = ("", "async_scheduling=on", "preset=vllm-0.19", "preset=vllm-0.19 async_scheduling=off")
    groups = [parse_fleet(f"h100 llama-3-8b {option}")[0] for option in (*options, "preset=sglang-0.5.6")]
    assert [group.ahead for group in groups] == [False, True, True, False, False]


def test_a_model_made_for_short_contexts_gets_no_longer_ones() -> None:
    assert parse_fleet("cpu demo")[0].limits.context_tokens == 2048
    assert parse_fleet("h100 qwen3-8b")[0].limits.context_tokens == 8192


def test_replicas_are_numbered_through_the_fleet_so_that_ids_sort_as_they_count() -> None:
    groups = parse_fleet("9x h100 demo, 2x l40s demo")
    ids = [name for name, _ in members(groups)]
    assert ids == sorted(ids) == [f"r{n:02d}" for n in range(11)]
    assert [group.device.name for _, group in members(groups)][8:] == ["h100", "l40s", "l40s"]
    assert [name for name, _ in members(parse_fleet("h100 demo"))] == ["r0"]


def test_replicas_are_described_with_speeds_that_the_roofline_predicts() -> None:
    groups = parse_fleet("2x h100 llama-3-8b")
    specs = expand(groups)
    assert list(specs) == ["r0", "r1"]
    roofline = groups[0].roofline
    assert specs["r1"].decode_step_s == roofline.step_s(StepShape(32, 32 * 1024, 0, 0, 0, 32))
    pairs = 512 * 513 // 2
    seconds = roofline.step_s(StepShape(prefills=1, prefill_tokens=512, prefill_attended_tokens=pairs))
    assert specs["r1"].prefill_tokens_per_s == 512 / seconds
    assert specs["r1"].models == ("llama-3-8b",)


def test_speeds_may_be_predicted_by_a_calibration_instead() -> None:
    (group,) = parse_fleet("cpu demo max_num_seqs=4")
    spec = group.replica_spec(Linear(base_s=0.5, per_decode_s=0.125))
    assert (spec.decode_step_s, spec.prefill_tokens_per_s, spec.price_per_h) == (1.0, 1024.0, None)


def test_callers_may_bring_models_and_devices_of_their_own() -> None:
    mine = replace(model("demo"), name="mine")
    (group,) = parse_fleet("cpu mine", models=MODELS | {"mine": mine}, devices=DEVICES)
    assert group.model is mine


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cannot read the fleet ''; write it like '8x a100-80g"),
        ("2x h100", "cannot read the fleet '2x h100'"),
        ("h100", "cannot read the fleet 'h100'"),
        ("h100 tp=2", "cannot read the fleet 'h100 tp=2'"),
        ("2x h100 demo,", "cannot read the fleet ''"),
        ("0x h100 demo", "count is '0'; write a whole number of at least 1"),
        ("h10 demo", "unknown device 'h10'; did you mean 'h100'"),
        ("h100 demos", "unknown model 'demos'; did you mean 'demo'"),
        ("h100 demo tpp=2", "unknown fleet option 'tpp'; did you mean 'tp'"),
        ("h100 demo tp", "tp has no value; write it like tp=1"),
        ("h100 demo tp=two", "tp is 'two'; write a whole number of at least 1"),
        ("h100 demo tp=3", "tensor_parallel is 3; it must divide the 4 heads of demo"),
        ("cpu demo tp=2", "a cpu has no link to another: set it to 1"),
        ("h100 demo price=cheap", "price is 'cheap'; write dollars an hour"),
        ("h100 demo async_scheduling=yes", "async_scheduling is 'yes'; write on or off"),
        ("h100 demo cold_start=45", "cold_start is '45'; write a number with a unit, like 45s"),
        ("h100 demo cold_start=4d", "cold_start is '4d'; write a number with a unit"),
        ("h100 demo load_bandwidth=fast", "cannot read the bandwidth 'fast'; write bytes a second"),
        ("h100 demo load_bandwidth=5Gb/s", "cannot read the bandwidth '5Gb/s'"),
        ("h100 demo load_bandwidth=0GB/s", "cannot read the bandwidth '0GB/s'; write .* above 0"),
        ("h100 demo prefix_caching=maybe", "prefix_caching is 'maybe'; write on or off"),
        ("rtx-4090 llama-3-70b", "llama-3-70b does not fit on 1x rtx-4090"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused_with_the_part_that_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_fleet(text)
