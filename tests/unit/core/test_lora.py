"""How large adapters are and who asks for which, against figures worked out by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.core.catalogue import model
from millrace.core.fleet_spec import parse_fleet
from millrace.core.lora import adapter_bytes, spread_adapters
from millrace.core.trace import TraceRecord


def records(count: int, session: str | None = None) -> list[TraceRecord]:
    return [
        TraceRecord(id=f"q{n}", t_s=float(n), input_tokens=10, output_tokens=5, session=session)
        for n in range(count)
    ]


def test_a_dense_model_has_an_adapter_beside_every_linear_layer() -> None:
    # llama-3-8b: q and o are 4096 x 4096, k and v 4096 x 1024, three MLP matrices 4096 x 14336, 32 layers
    each = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336)
    assert adapter_bytes(model("llama-3-8b"), 16) == 16 * 32 * each * 2


def test_a_model_of_experts_has_them_beside_attention_only() -> None:
    mixtral = model("mixtral-8x7b")
    assert adapter_bytes(mixtral, 8) == 8 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024)) * 2


def test_latent_attention_has_no_one_form_of_adapter() -> None:
    with pytest.raises(ValueError, match="latent attention"):
        adapter_bytes(model("deepseek-v3"), 8)


def test_adapters_are_shared_by_a_power_law_and_always_in_the_same_way() -> None:
    asked = [record.adapter for record in spread_adapters(records(6000), 3)]
    assert asked == [record.adapter for record in spread_adapters(records(6000), 3)]
    shares = {name: count / 6000 for name, count in Counter(asked).items()}
    whole = 1 + 1 / 2 + 1 / 3
    expected = {f"adapter-{k}": pytest.approx(1 / k / whole, abs=0.02) for k in (1, 2, 3)}
    assert shares == expected


def test_a_conversation_keeps_its_adapter() -> None:
    assert len({record.adapter for record in spread_adapters(records(50, "s"), 9)}) == 1


def test_nobody_shares_no_adapters() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(spread_adapters(records(1), 0))


def test_a_fleet_says_how_many_adapters_fit_and_how_they_load() -> None:
    group = parse_fleet("h100 llama-3-8b max_loras=4 lora_load=50ms")[0]
    assert group.limits.adapters == 4
    assert group.replica_spec().adapter_load_s == pytest.approx(0.05)
    sized = parse_fleet("h100 llama-3-8b max_loras=4 lora_rank=16 load_bandwidth=5GB/s")[0]
    assert sized.adapter_load_s == adapter_bytes(sized.model, 16) / 5e9
    assert parse_fleet("h100 llama-3-8b max_loras=4")[0].adapter_load_s is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("lora_load=50ms", "say how many fit"),
        ("max_loras=2 lora_rank=8", "say how they load"),
        ("max_loras=2 lora_load=50", "lora_load is '50'"),
    ],
)
def test_a_fleet_that_says_half_is_told_the_other_half(options: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_fleet(f"h100 llama-3-8b {options}")
