"""What it costs to encode an image or a sound before a language model reads it.

A vision transformer looks at patches, of which several become one token; its matrix products are counted, and
its attention, which stays within a tile, is left out. Decoding and resizing pictures on a processor is too.
"""

from __future__ import annotations

from msgspec import Struct

from millrace.core.cost.efficiency import efficiency_of
from millrace.core.device import DeviceSpec


class Encoder(Struct, frozen=True, kw_only=True):
    """An encoder on a replica: `start_s`, and then so many tokens a second.

    `bytes_per_token` is what a token takes on its way to another replica.
    """

    tokens_per_s: float
    start_s: float = 0.0
    bytes_per_token: float = 0.0

    def seconds(self, tokens: int) -> float:
        """Seconds to encode media that become so many tokens; none take none."""
        return self.start_s + tokens / self.tokens_per_s if tokens else 0.0


def encoder_on(
    device: DeviceSpec, *, parameters: float, patches_per_token: float, hidden: int, devices: int = 1
) -> Encoder:
    """Price an encoder of so many parameters, split over the devices, at the share that layers reach there.

    `hidden` is the width of the language model, whose inputs it makes in bf16.
    """
    flops = devices * device.flops * efficiency_of(device.name).compute
    return Encoder(
        tokens_per_s=flops / (2 * parameters * patches_per_token),
        bytes_per_token=2 * hidden,
    )
