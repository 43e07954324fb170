"""What the words for a fleet say of encoders."""

from __future__ import annotations

import pytest

from millrace.core.catalogue import device
from millrace.core.cost.encode import Encoder, encoder_on
from millrace.core.fleet_spec import parse_fleet


def _encoder(words: str) -> Encoder | None:
    (group,) = parse_fleet(f"h100 llama-3-8b {words}")
    return group.encoder


def test_a_group_encodes_at_the_speed_that_is_said() -> None:
    assert _encoder("") is None
    assert _encoder("encode_speed=12000") == Encoder(tokens_per_s=12000.0, bytes_per_token=8192)
    assert _encoder("encode_speed=1.2e4 encode_start=5ms") == Encoder(
        tokens_per_s=12000.0, start_s=0.005, bytes_per_token=8192
    )


def test_or_as_fast_as_the_data_sheet_lets_an_encoder_be() -> None:
    sheet = encoder_on(device("h100"), parameters=5.5e9, patches_per_token=4, hidden=4096, devices=2)
    assert _encoder("tp=2 encoder_params=5.5e9") == sheet


def test_a_replica_that_only_encodes_needs_no_room_for_the_model() -> None:
    (group,) = parse_fleet("l40s llama-3-70b role=encode encode_speed=9000")
    spec = group.replica_spec()
    assert (spec.role, spec.prefill_tokens_per_s, group.limits.kv_blocks) == ("encode", 9000.0, 1)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("role=encode", "role is encode, but not how fast media are encoded: say encode_speed=12000"),
        ("encode_start=5ms", "encode_start is said, but not how fast"),
        ("encode_speed=0", "encode_speed is '0'; write tokens a second, like 12000"),
        ("encode_speed=fast", "encode_speed is 'fast'; write tokens a second"),
        ("encoder_params=1e999", "encoder_params is '1e999'; write its parameters, like 5.5e9"),
        ("encode_speed=9 encoder_params=9", "both say how fast media are encoded: leave out one"),
        ("encode_speed=9 encode_start=5", "encode_start is '5'; write a number with a unit"),
        ("role=encoder", "role is 'encoder'; write both, prefill, decode or encode"),
    ],
)
def test_what_is_wrong_is_named_with_the_fix(words: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        _encoder(words)
