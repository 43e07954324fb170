"""What a gateway cannot carry out, it says when it starts."""

from __future__ import annotations

import pytest

from millrace.core.replica import ReplicaSpec
from millrace.gateway.fleet import Fleet
from millrace.gateway.settings import GatewaySettings


def test_a_live_fleet_of_encoders_is_refused() -> None:
    backend = "http://127.0.0.1:8001"
    apart = GatewaySettings(backends=(backend,), specs={backend: ReplicaSpec(models=("m",), role="encode")})
    with pytest.raises(ValueError, match=r"has role 'encode': a gateway has nothing encoded"):
        Fleet(apart)
