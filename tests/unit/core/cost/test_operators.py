from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import model
from millrace.core.cost import Collective, Curve, Experts, Operators
from millrace.core.cost.operators import Exchange, exchange_of, graph_sizes

OPERATORS = Operators(dense=Curve((0, 100), (1.0, 2.0)), head=Curve((0, 10), (0.0, 1.0)))
LINK = Collective(devices=2, start_s=10.0, per_byte_s=1.0, source="made up")


def experts(ranks: int, *, whole: bool) -> Experts:
    """Seconds = woken experts + tokens / 100, of 8 of which each token wakes 2."""
    tokens = (1, 100)
    woken = tuple(Curve((2, 8), (2 + n / 100, 8 + n / 100)) for n in tokens)
    return Experts(tokens=tokens, woken=woken, experts=8, active=2, ranks=ranks, whole=whole)


def test_layers_go_by_tokens_and_the_head_by_sequences() -> None:
    assert OPERATORS.own_s(10, 0, 0) == pytest.approx(1.1 + 1.0)
    assert OPERATORS.own_s(2, 1, 38) == pytest.approx(1.4 + 0.3)


def test_the_host_is_paid_once_a_step() -> None:
    assert replace(OPERATORS, host_s=0.5).own_s(10, 0, 0) == pytest.approx(2.6)


def test_small_steps_are_as_large_as_the_graph_they_replay() -> None:
    graphs = replace(OPERATORS, graph_tokens=(1, 8, 16))
    assert graphs.own_s(10, 0, 0) == pytest.approx(1.16 + 1.0)
    assert graphs.own_s(0, 1, 17) == pytest.approx(1.17 + 0.1)


def test_what_is_exchanged_is_added() -> None:
    busy = replace(OPERATORS, exchange=Exchange(start_s=1.0, per_token_s=0.1, per_sequence_s=0.01))
    assert busy.own_s(10, 0, 0) == pytest.approx(2.1 + 1.0 + 1.0 + 0.1)


def test_experts_are_woken_by_chance() -> None:
    alone = experts(1, whole=False)
    assert alone.price_s(1) == pytest.approx(2.01)
    assert alone.price_s(2) == pytest.approx(8 * (1 - 0.75**2) + 0.02)
    assert alone.price_s(100) == pytest.approx(8 + 1.0)


def test_ranks_share_experts_whole_or_in_slices() -> None:
    alone = experts(1, whole=False)
    assert experts(2, whole=False).price_s(50) == pytest.approx(alone.price_s(50) / 2)
    assert experts(2, whole=True).price_s(100) == pytest.approx(4 + 0.5)


def test_a_dense_model_has_no_experts_and_an_idle_step_wakes_none() -> None:
    assert OPERATORS.experts_s(10) == 0
    mixture = replace(OPERATORS, experts=experts(1, whole=False))
    assert mixture.experts_s(0) == 0
    there = replace(mixture, exchange=Exchange(experts_start_s=1.0, experts_token_s=0.1))
    assert there.experts_s(1) == pytest.approx(2.01 + 1.0 + 0.1)


def test_each_layer_sums_up_twice_the_embedding_once_and_logits_are_gathered() -> None:
    spec = model("llama-3-8b")
    found = exchange_of(spec, LINK)
    assert found.start_s == (2 * 32 + 1 + 1) * 10
    assert found.per_token_s == (2 * 32 + 1) * 2 * 4096
    assert found.per_sequence_s == 128_256
    assert exchange_of(spec, None) == Exchange()


def test_tokens_go_to_experts_on_other_ranks_and_back() -> None:
    spec = model("mixtral-8x7b")
    found = exchange_of(spec, None, experts_across=LINK)
    assert (found.start_s, found.experts_start_s) == (0, 32 * 2 * 10)
    assert found.experts_token_s == 32 * (4096 + 8 + 4096)


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(3, (1, 2)), (16, (1, 2, 4, 8, 16)), (256, (248, 256)), (288, (256, 272, 288)), (512, (496, 512))],
)
def test_graphs_are_captured_at_the_sizes_that_vllm_captures(largest: int, sizes: tuple[int, ...]) -> None:
    found = graph_sizes(largest)
    assert found[-len(sizes) :] == sizes
    assert list(found) == sorted(set(found))
