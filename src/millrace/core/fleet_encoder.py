"""What a fleet described in words says of encoders: how fast its replicas turn media into tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf

from msgspec.structs import replace

from millrace.core.cost.encode import Encoder, encoder_on
from millrace.core.device import DeviceSpec
from millrace.core.model import ModelSpec
from millrace.core.quantity import seconds

PATCHES_PER_TOKEN = 4  # as InternVL has it; other models that shuffle pixels do too


def encoder_of(
    options: Mapping[str, str], model: ModelSpec, device: DeviceSpec, *, devices: int
) -> Encoder | None:
    """Return the encoder that these options of a group describe, on so many devices; None if they do not.

    It makes inputs of the model, in bf16. Raises ValueError, naming the option and the fix.
    """
    speed, parameters = options.get("encode_speed"), options.get("encoder_params")
    if speed is not None and parameters is not None:
        raise ValueError("encode_speed and encoder_params both say how fast media are encoded: leave out one")
    start_s = seconds("encode_start", options["encode_start"]) if "encode_start" in options else 0.0
    if speed is not None:
        tokens_per_s = _number("encode_speed", speed, "tokens a second, like 12000")
        return Encoder(tokens_per_s=tokens_per_s, start_s=start_s, bytes_per_token=2 * model.hidden)
    if parameters is not None:
        made = encoder_on(
            device,
            parameters=_number("encoder_params", parameters, "its parameters, like 5.5e9"),
            patches_per_token=PATCHES_PER_TOKEN,
            hidden=model.hidden,
            devices=devices,
        )
        return replace(made, start_s=start_s)
    needing = "role is encode" if options.get("role") == "encode" else "encode_start is said"
    if options.get("role") == "encode" or start_s:
        raise ValueError(
            f"{needing}, but not how fast media are encoded: say encode_speed=12000 (tokens a second), or "
            "encoder_params=5.5e9"
        )
    return None


def _number(name: str, text: str, what: str) -> float:
    found = re.fullmatch(r"\d+(\.\d+)?(e\+?\d+)?", text, re.ASCII | re.IGNORECASE)
    if not found or not 0 < float(text) < inf:
        raise ValueError(f"{name} is {text!r}; write {what}")
    return float(text)
