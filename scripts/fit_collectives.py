"""Fit what all-reduces and gathers take over PCIe, for `core/cost/efficiency.py`.

Run it as `python scripts/fit_collectives.py` with the packages aiconfigurator-core (NVIDIA, Apache-2.0) and
pyarrow installed. It prints, for NCCL between so many devices, 64 KiB to 64 MiB, newest tables: microseconds
to start, the share of the data sheet's link that a ring reaches, and what gathering takes of an all-reduce.
"""

from __future__ import annotations

from millrace.core.catalogue import device
from millrace.data.aiconfigurator import open_collective

PCIE = ("l40s", "rtx-pro-6000")


def main() -> None:
    """Print a line for every kind of device and number of devices."""
    for name in PCIE:
        spec = device(name)
        assert spec.link_bytes_per_s
        for devices in (2, 4, 8):
            found = open_collective(spec, devices)
            share = 2 * (devices - 1) / devices / found.per_byte_s / spec.link_bytes_per_s
            start_us = found.start_s * 1e6
            print(f"{name} x{devices}: {start_us:.1f} us, link {share:.3f}, gather {found.gather:.2f}")


if __name__ == "__main__":
    main()
