"""How much of a data sheet real kernels reach, per device, with the source and the error of each figure.

Layers: fitted by `scripts/fit_efficiency.py` to operator times of Vidur (A100, H100; MIT) and of vLLM 0.19 as
LLMServingSim publishes them (RTX 4090, RTX PRO 6000; MIT). Attention of the A100, H100 and H200: fitted to
AIConfigurator's tables (Apache-2.0; vLLM 0.14 and 0.24), that of the RTX cards again by the script.
All-reduces over PCIe: `scripts/fit_collectives.py`, from AIConfigurator's tables too.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace


class Efficiency(Struct, frozen=True, kw_only=True):
    """What separates a device's kernels from its data sheet; shares are of the data sheet's figures.

    A layer's matrix products take ((computing)^p + (reading weights)^p)^(1/p) with p = `softness`, at the
    shares `compute` and `bandwidth`. `layer_s` is what launches and small kernels take in a layer however
    small the batch; `elementwise` is the share at which they move activations (above 1: out of a cache).

    Attention of a layer starts after `decode_s` or `prefill_s`. Decodes take `decode_head_s` for each
    sequence and KV head, and read their cache at `decode_bandwidth`. Prompts compute at `prefill_compute`
    once `prefill_rows` pairs of token and head are under way, and proportionally slower below. A batch
    with both runs in one kernel that treats each decode as `mixed_rows` rows of a prompt, and spends
    `mixed_head_s` for each sequence and KV head.

    An all-reduce takes `all_reduce_s` and a ring's transfers at `link`, a share of the link's bandwidth;
    gathering takes the share `gather` of its time for a byte. `wider` are numbers of devices from which on
    the two are others, with both: over PCIe, more devices cross more of the host.
    """

    compute: float
    bandwidth: float
    softness: float
    layer_s: float
    elementwise: float
    decode_s: float
    decode_head_s: float
    decode_bandwidth: float
    prefill_s: float
    prefill_compute: float
    prefill_rows: float
    mixed_rows: float = 34
    mixed_head_s: float = 110e-9
    all_reduce_s: float = 5e-6
    link: float = 0.6
    gather: float = 0.5
    wider: tuple[tuple[int, float, float], ...] = ()
    calibrated: bool = True
    expected_error: str


# All-reduce starts on NVLink: vLLM's own kernel under CUDA graphs, 4.2 to 5 us in AIConfigurator's tables;
# NCCL starts in 27 to 48 us, which only large messages amortise. Links: NCCL, 1 to 64 MiB, 6 to 7 % off.
# Over PCIe: NCCL, 64 KiB to 64 MiB, 6 % off between two devices and 5 to 16 % among more, which works whether
# or not a host lets devices read each other's memory. Hosts differ: where they may, vLLM's own kernel takes
# 56 us for a MiB between two RTX PRO 6000 (NCCL: 72 us), and on one host all engines take 158 us.
# Of the RTX 4090, whose driver forbids it, they are assumed.
# Mixed batches and `prefill_rows` of the A100, H100 and H200 are carried over from the RTX cards, the latter
# as 52 rows per multiprocessor.
_MEASURED = {
    "a100-80g": Efficiency(
        compute=0.734,
        bandwidth=0.812,
        softness=1.43,
        layer_s=39.5e-6,
        elementwise=0.529,
        decode_s=17e-6,
        decode_head_s=32e-9,
        decode_bandwidth=0.77,
        prefill_s=11e-6,
        prefill_compute=0.487,
        prefill_rows=5600,
        link=0.578,
        expected_error="layers 4 to 6 %, attention 10 % (decode), 14 % (prompt); mixed batches not measured",
    ),
    "h100": Efficiency(
        compute=0.743,
        bandwidth=0.929,
        softness=1.3,
        layer_s=34.0e-6,
        elementwise=0.653,
        decode_s=11.6e-6,
        decode_head_s=25e-9,
        decode_bandwidth=0.928,
        prefill_s=13e-6,
        prefill_compute=0.536,
        prefill_rows=6900,
        link=0.773,
        expected_error="layers 5 to 7 %, attention 9 % (decode), 12 % (prompt); mixed batches not measured",
    ),
    "h200": Efficiency(
        compute=0.743,
        bandwidth=0.929,
        softness=1.3,
        layer_s=34.0e-6,
        elementwise=0.653,
        decode_s=11.6e-6,
        decode_head_s=25e-9,
        decode_bandwidth=0.885,
        prefill_s=13e-6,
        prefill_compute=0.536,
        prefill_rows=6900,
        link=0.773,
        expected_error="decode attention 8 %; layers and prompt attention at the H100's shares, not measured",
    ),
    "rtx-4090": Efficiency(
        compute=0.963,
        bandwidth=0.932,
        softness=1.93,
        layer_s=20.6e-6,
        elementwise=2.63,
        decode_s=11.8e-6,
        decode_head_s=25.3e-9,
        decode_bandwidth=0.923,
        prefill_s=9.2e-6,
        prefill_compute=0.698,
        prefill_rows=6960,
        mixed_rows=31.4,
        mixed_head_s=147e-9,
        all_reduce_s=30e-6,
        link=0.25,
        expected_error="layers 3 to 4 %, attention 8 % (decode), 9 % (prompt), 15 % (mixed batches)",
    ),
    "rtx-pro-6000": Efficiency(
        compute=0.795,
        bandwidth=0.819,
        softness=1.48,
        layer_s=22.4e-6,
        elementwise=2.9,
        decode_s=12.3e-6,
        decode_head_s=12.9e-9,
        decode_bandwidth=0.804,
        prefill_s=7.5e-6,
        prefill_compute=0.440,
        prefill_rows=9250,
        mixed_rows=36.0,
        mixed_head_s=73.9e-9,
        all_reduce_s=11e-6,
        link=0.275,
        gather=0.6,
        wider=((4, 24e-6, 0.197), (8, 64e-6, 0.187)),
        expected_error="layers 3 %, attention 7 % (decode), 9 % (prompt), 20 % (mixed batches)",
    ),
    "cpu": Efficiency(
        compute=0.8,
        bandwidth=0.9,
        softness=1.3,
        layer_s=150e-6,
        elementwise=0.5,
        decode_s=20e-6,
        decode_head_s=2e-6,
        decode_bandwidth=0.5,
        prefill_s=20e-6,
        prefill_compute=0.3,
        prefill_rows=1,
        mixed_rows=0,
        mixed_head_s=2e-6,
        calibrated=False,
        expected_error="uncalibrated: a stand-in, off by a factor of two or more; calibrate this machine",
    ),
}

TYPICAL = Efficiency(
    compute=0.77,
    bandwidth=0.9,
    softness=1.4,
    layer_s=30e-6,
    elementwise=1.0,
    decode_s=12e-6,
    decode_head_s=25e-9,
    decode_bandwidth=0.85,
    prefill_s=10e-6,
    prefill_compute=0.5,
    prefill_rows=7000,
    all_reduce_s=30e-6,
    link=0.5,
    calibrated=False,
    expected_error="uncalibrated: at these shares layers of four measured GPUs are 7 to 27 % off",
)


_COLLECTIVES_MEASURED = {
    "l40s": replace(
        TYPICAL,
        all_reduce_s=16e-6,
        link=0.307,
        gather=0.54,
        wider=((4, 22e-6, 0.082), (8, 117e-6, 0.026)),
    )
}


def efficiency_of(device: str) -> Efficiency:
    """Return what is known of the device of this name; of others, what is typical of GPUs."""
    return _MEASURED.get(device) or _COLLECTIVES_MEASURED.get(device, TYPICAL)
