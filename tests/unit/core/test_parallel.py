"""Every plan that fits is found, and stages cost what is sent between them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.cost import Linear, StepShape
from millrace.core.memory import kv_blocks
from millrace.core.parallel import Cluster, Plan, Staged, plans
from millrace.core.replica import Limits

CLUSTER = Cluster(device=device("h100"), machines=2, devices_each=4, link_bytes_per_s=50e9, start_s=10e-6)
SHAPE = StepShape(decodes=100, decode_context_tokens=1000, emits=100)
STEP = Linear(base_s=0.01, per_token_s=1e-4, power_w=100.0)


def test_plans_use_all_devices_and_keep_layers_within_a_machine() -> None:
    found = [plan for plan, _ in plans(model("llama-3-8b"), CLUSTER, Limits())]
    assert all(plan.tensor * plan.pipeline * plan.data == CLUSTER.devices == 8 for plan in found)
    assert {plan.tensor for plan in found} == {1, 2, 4}
    assert Plan(tensor=1, pipeline=8, data=1) in found
    assert len(found) == len(set(found)) == 9


def test_plans_that_do_not_fit_or_do_not_divide_are_left_out() -> None:
    found = [plan for plan, _ in plans(model("llama-3-70b"), CLUSTER, Limits())]
    assert all(plan.tensor * plan.pipeline >= 2 for plan in found)
    three = replace(CLUSTER, devices_each=3)
    assert {p.tensor * p.pipeline for p, _ in plans(model("llama-3-8b"), three, Limits())} == {1, 2}


def test_a_batch_that_leaves_no_room_for_one_request_is_no_plan() -> None:
    limits = Limits(context_tokens=131_072)
    cached = [plan for plan, found in plans(model("llama-3-70b"), CLUSTER, limits) if plan.tensor == 2]
    assert Plan(tensor=2, pipeline=1, data=4) not in cached
    assert cached


def test_a_stage_has_room_for_as_much_more_as_it_has_less_weights() -> None:
    spec, limits = model("llama-3-70b"), Limits()
    found = dict(plans(spec, CLUSTER, limits))
    assert found[Plan(tensor=4, pipeline=1, data=2)].kv_blocks == kv_blocks(spec, CLUSTER.device, 4, limits)
    two_stages = found[Plan(tensor=4, pipeline=2, data=1)].kv_blocks
    assert two_stages > found[Plan(tensor=4, pipeline=1, data=2)].kv_blocks


def test_stages_send_activations_once_each_and_across_machines_more_slowly() -> None:
    spec = model("llama-3-8b")

    def sent_s(**sizes: int) -> float:
        return Staged(STEP, spec, Plan(**sizes), CLUSTER).step_s(SHAPE) - STEP.step_s(SHAPE)

    near_s = CLUSTER.start_s + 100 * 2 * spec.hidden / 450e9
    far_s = CLUSTER.start_s + 100 * 2 * spec.hidden / 50e9
    assert sent_s(tensor=1, pipeline=1, data=8) == 0
    assert sent_s(tensor=1, pipeline=2, data=4) == pytest.approx(near_s)
    assert sent_s(tensor=4, pipeline=2, data=1) == pytest.approx(
        CLUSTER.start_s + (far_s - CLUSTER.start_s) / 4
    )
    assert sent_s(tensor=1, pipeline=8, data=1) == pytest.approx(6 * near_s + far_s)


def test_an_empty_step_takes_nothing_and_sending_draws_nothing() -> None:
    staged = Staged(STEP, model("llama-3-8b"), Plan(tensor=1, pipeline=2, data=4), CLUSTER)
    assert staged.step_s(StepShape()) == 0
    assert staged.step_j(SHAPE) == STEP.step_j(SHAPE)


def test_a_plan_says_itself_in_words() -> None:
    plan = Plan(tensor=4, pipeline=2, data=3)
    assert str(plan) == "tp=4 pp=2 dp=3"
    assert plan.batches == 6
