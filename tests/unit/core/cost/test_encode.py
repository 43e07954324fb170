"""What an encoder costs."""

from __future__ import annotations

import pytest

from millrace.core.catalogue import device
from millrace.core.cost import efficiency_of
from millrace.core.cost.encode import Encoder, encoder_on


def test_seconds_are_a_start_and_a_rate() -> None:
    encoder = Encoder(tokens_per_s=100.0, start_s=0.5)
    assert (encoder.seconds(0), encoder.seconds(50)) == (0.0, 1.0)


def test_an_encoder_is_priced_by_its_products_on_all_devices() -> None:
    h100 = device("h100")
    found = encoder_on(h100, parameters=1e9, patches_per_token=4, hidden=100, devices=2)
    assert found.tokens_per_s == pytest.approx(2 * h100.flops * efficiency_of("h100").compute / 8e9)
    assert found.bytes_per_token == 200
