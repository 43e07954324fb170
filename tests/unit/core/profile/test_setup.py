from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.core.catalogue import device, model
from millrace.core.cost import AttentionFit, AttentionGrid, Collective, Curve, StepShape
from millrace.core.cost.attention_fit import shape_of
from millrace.core.cost.operators import Exchange
from millrace.core.profile import Setup, Tables

LINK = Collective(devices=2, start_s=1e-3, per_byte_s=1e-9, source="made up")
DENSE = Setup(model=model("llama-3-8b"), device=device("h100"))
MIXTURE = Setup(model=model("mixtral-8x7b"), device=device("h100"))
BATCHES = [(0, 0, n, each) for n in (1, 2, 4, 8) for each in (16, 128, 1024)]
BATCHES += [(c, k, n, 16 * n) for c in (16, 64, 256) for k in (0, 64) for n in (0, 1, 4)]
ATTENTION = {(c, k, n, each): 1e-5 * (1 + c + k + n + n * each) for c, k, n, each in BATCHES}
TABLES = Tables(
    dense=Curve(tuple(range(1, 50)), tuple(1e-3 + 1e-5 * n for n in range(1, 50))),
    head=Curve((1, 2, 3), (1e-4, 1.5e-4, 3e-4)),
    attention=ATTENTION,
    experts={1: Curve((2,), (1e-3,)), 100: Curve((8,), (5e-3,))},
)
DECODE = shape_of((0, 0, 4, 128))


def test_a_lone_device_exchanges_nothing() -> None:
    assert DENSE.exchange == MIXTURE.exchange == Exchange()


def test_an_exchange_is_as_it_was_timed_or_else_as_the_link_allows() -> None:
    two = replace(DENSE, tensor_parallel=2)
    assert replace(two, collective=LINK).exchange.start_s == pytest.approx(66e-3)
    assert two.exchange.start_s == pytest.approx(66 * 5e-6)


def test_only_ranks_with_experts_to_share_depend_on_each_other() -> None:
    assert replace(DENSE, data_parallel=2, collective=LINK).exchange == Exchange()
    shared = replace(MIXTURE, data_parallel=2, collective=LINK)
    assert shared.exchange.experts_start_s == pytest.approx(64e-3)
    assert shared.sheet.data_parallel == 2
    assert replace(DENSE, data_parallel=2).sheet.data_parallel == 1


def test_tables_make_a_model_of_the_measurements_themselves() -> None:
    priced = TABLES.grid(replace(DENSE, host_s=0.1))
    assert isinstance(priced.attention, AttentionGrid)
    assert priced.step_s(DECODE) == pytest.approx(0.1 + TABLES.dense.at(4) + 4.5e-4 + ATTENTION[0, 0, 4, 128])
    assert priced.price_per_h == 3.99


def test_tables_make_a_model_of_few_numbers() -> None:
    priced = TABLES.fitted(DENSE)
    assert isinstance(priced.attention, AttentionFit)
    assert len(priced.operators.dense.points) == 2
    assert priced.step_s(DECODE) == pytest.approx(TABLES.grid(DENSE).step_s(DECODE), rel=0.02)


def test_experts_are_priced_where_the_model_has_them() -> None:
    priced = TABLES.grid(MIXTURE)
    assert priced.experts_s(1) == pytest.approx(1e-3)
    shared = TABLES.grid(replace(MIXTURE, tensor_parallel=2, data_parallel=2, expert_parallel=True))
    assert shared.operators.experts is not None
    assert (shared.operators.experts.ranks, shared.operators.experts.whole) == (4, True)
    assert TABLES.grid(DENSE).experts_s(1) == 0


def test_experts_without_times_are_refused() -> None:
    with pytest.raises(ValueError, match="mixtral-8x7b has experts, but their times are missing"):
        replace(TABLES, experts=None).grid(MIXTURE)


def test_small_steps_replay_a_graph() -> None:
    graphs = TABLES.grid(replace(DENSE, graph_tokens=(8, 16)))
    plain = TABLES.grid(DENSE)
    assert graphs.step_s(DECODE) - plain.step_s(DECODE) == pytest.approx(4e-5)
    assert graphs.step_s(StepShape()) == 0
