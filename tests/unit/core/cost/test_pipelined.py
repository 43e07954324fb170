"""A round through a pipeline: as long as its largest batch, with what is sent between stages."""

from __future__ import annotations

from itertools import pairwise
from math import isnan

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.cost import AttentionGrid, Curve, Linear, Operators, Profiled, Roofline, StepShape
from millrace.core.cost.pipelined import Pipelined
from millrace.core.cost.shape import ENDLESS

LLAMA, H100 = model("llama-3-70b"), device("h100")
SHEET = Roofline(LLAMA, H100, tensor_parallel=4)
NEAR = StepShape(decodes=64, decode_context_tokens=64_000, emits=64)
PROMPT = StepShape(prefills=1, prefill_tokens=512, prefill_attended_tokens=512 * 513 // 2, emits=1)


def staged(stages: int, cost: Roofline | Linear = SHEET) -> Pipelined:
    return Pipelined(cost, LLAMA, H100, stages=stages, step_tokens=512)


def sends_s(stages: int, tokens: int) -> float:
    link_bytes_per_s = 450e9 * 0.773
    return (stages - 1) * (5e-6 + tokens * 4 * LLAMA.hidden / link_bytes_per_s)


def test_decodes_are_dealt_out_evenly() -> None:
    half = replace(NEAR, decodes=32, decode_context_tokens=32_000, emits=32)
    assert staged(2).batches(NEAR) == (half, 2)
    assert staged(2).step_s(NEAR) == pytest.approx(SHEET.step_s(half) + sends_s(2, 32))


def test_one_stage_is_the_step_itself() -> None:
    assert staged(1).step_s(NEAR) == SHEET.step_s(NEAR)
    assert staged(1).step_j(NEAR) == pytest.approx(SHEET.step_j(NEAR))


def test_a_batch_that_is_alone_gains_nothing() -> None:
    assert staged(4).step_s(PROMPT) == pytest.approx(SHEET.step_s(PROMPT) + sends_s(4, 512))


def test_a_prompt_longer_than_a_batch_is_cut_and_a_shorter_one_holds_up_the_decodes() -> None:
    long = replace(PROMPT, prefill_tokens=2048, prefill_attended_tokens=2048 * 2049 // 2)
    largest, batches = staged(4).batches(long)
    assert (largest.prefill_tokens, batches) == (512, 4)
    both = replace(PROMPT, decodes=3, decode_context_tokens=300, emits=4)
    assert staged(4).step_s(both) >= staged(4).step_s(PROMPT)


def test_layers_that_do_not_divide_leave_a_stage_that_all_wait_for() -> None:
    three = staged(3)
    largest, _ = three.batches(NEAR)
    assert three.step_s(NEAR) == pytest.approx(81 / 80 * SHEET.step_s(largest) + sends_s(3, 22))


def test_an_empty_round_takes_and_draws_nothing() -> None:
    assert (staged(2).step_s(StepShape()), staged(2).step_j(StepShape())) == (0.0, 0.0)


def test_stages_that_wait_are_idle() -> None:
    alone = staged(4)
    seconds = alone.step_s(PROMPT)
    idle_j = (4 * seconds - SHEET.step_s(PROMPT)) * 121.7
    assert alone.step_j(PROMPT) == pytest.approx(SHEET.step_j(PROMPT) + idle_j)


def test_what_is_not_known_of_a_stage_is_not_known_of_the_pipeline() -> None:
    bare = staged(2, Linear(base_s=0.01))
    assert isnan(bare.step_j(NEAR))
    assert bare.price_per_h is None
    assert bare.expected_error == "not measured; pipelines not measured"
    assert staged(2).price_per_h == 8 * 3.99


def test_rounds_of_decodes_lie_on_a_line_as_far_as_those_of_a_stage_do() -> None:
    odd = replace(NEAR, decodes=63, decode_context_tokens=63_007, emits=63)
    shapes = [replace(odd, decode_context_tokens=odd.decode_context_tokens + n * 63) for n in range(5)]
    prices = [staged(2).step_s(shape) for shape in shapes]
    gains = [after - before for before, after in pairwise(prices)]
    assert gains == pytest.approx([gains[0]] * 4, rel=1e-6)
    assert staged(2).straight(shapes[0], shapes[1]) == ENDLESS
    assert staged(2, Linear(base_s=0.01)).straight(shapes[0], shapes[1]) == ENDLESS
    assert staged(2).straight(PROMPT, PROMPT) == 1


def test_bends_of_a_measured_stage_are_bends_of_the_round() -> None:
    seconds = {(0, 0, n, each): n * each * 1e-6 for n in (1, 64) for each in (16, 1024, 4096)}
    grid = AttentionGrid(seconds | {(16, 0, 0, 0): 1e-3})
    flat = Curve((1, 2), (1e-3, 1e-3))
    cost = Profiled(Operators(dense=flat, head=flat), grid)
    piped = Pipelined(cost, LLAMA, H100, stages=2, step_tokens=512)
    assert piped.needs_lengths
    following = replace(NEAR, decode_context_tokens=64_064)
    assert piped.straight(NEAR, following) == 25


@pytest.mark.parametrize("stages", [0, 81])
def test_stages_that_no_layer_is_left_for_are_refused(stages: int) -> None:
    with pytest.raises(
        ValueError, match=f"pipeline_parallel is {stages}; it must be from 1 to the 80 layers"
    ):
        staged(stages)


def test_devices_without_a_link_make_no_pipeline() -> None:
    with pytest.raises(ValueError, match="pipeline_parallel is 2, but a cpu has no link to another"):
        Pipelined(SHEET, LLAMA, device("cpu"), stages=2, step_tokens=512)
