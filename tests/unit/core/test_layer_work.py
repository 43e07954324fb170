"""A layer's operations add up to what the model needs, however many parts the batch is cut into."""

from __future__ import annotations

import pytest

from millrace.core.catalogue import device, model
from millrace.core.layer_work import Mix, layer_operations
from millrace.core.overlap import RESOURCES, Resource

MIX = Mix(step_tokens=2048, prompt_tokens=1024, answer_tokens=512)


def busy_s(parts: int) -> dict[Resource, float]:
    found = layer_operations(
        model("llama-2-70b"), device("a100-80g"), 8, MIX, layers=3, shares=[1 / parts] * parts
    )
    return {name: sum(o.seconds for o in found if o.resource == name) for name in RESOURCES}


def test_a_mix_has_as_many_decodes_as_answers_have_tokens() -> None:
    assert MIX.decodes == pytest.approx(2048 / 3)
    assert MIX.context_tokens == pytest.approx(MIX.decodes * 1280)
    assert MIX.pairs == pytest.approx(2048 * 2 / 3 * 512)


def test_matrix_products_take_the_operations_of_the_model() -> None:
    spec, a100 = model("llama-2-70b"), device("a100-80g")
    least_s = 2048 * spec.flops_per_token * 3 / spec.layers / (8 * a100.flops)
    assert least_s < busy_s(1)["compute"] < 2 * least_s


def test_cutting_the_batch_costs_starts_and_reading_weights_again() -> None:
    whole, cut = busy_s(1), busy_s(4)
    assert whole["compute"] < cut["compute"] < 1.2 * whole["compute"]
    assert cut["memory"] == pytest.approx(whole["memory"])
    assert cut["network"] - whole["network"] == pytest.approx(3 * 3 * 2 * 5e-6, rel=0.01)


def test_every_part_goes_through_the_layers_in_order() -> None:
    found = layer_operations(
        model("llama-2-7b"), device("a100-80g"), 2, MIX, layers=2, shares=[0.5, 0.25, 0.25]
    )
    assert len(found) == 2 * 3 * 7
    for index, operation in enumerate(found):
        for before in operation.after:
            assert before < index
            assert found[before].name.rpartition(".")[2] == operation.name.rpartition(".")[2]
    assert sum(not operation.after for operation in found) == 3


def test_the_list_may_be_in_the_order_of_what_is_done() -> None:
    found = layer_operations(
        model("llama-2-7b"), device("a100-80g"), 2, MIX, layers=1, shares=[0.5, 0.5], by_operation=True
    )
    assert [operation.name for operation in found[:3]] == ["qkv 0.0", "qkv 0.1", "prompt attention 0.0"]
    assert [operation.after for operation in found[:4]] == [(), (), (0,), (1,)]


def test_models_with_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="mixtral-8x7b has experts"):
        layer_operations(model("mixtral-8x7b"), device("h100"), 2, MIX, layers=1, shares=[1])
