"""Compress the collective measurements that receipts are fitted to, the same from the same files.

Run it as `python scripts/ship_collectives.py FOLDER`, where FOLDER is `data/profiling/network` of
microsoft/vidur (MIT): a100_dgx and h100_dgx, each with all_reduce.csv and send_recv.csv. Kept is the median
of every fourth message size, for every number of devices and of devices in a machine.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections import defaultdict
from pathlib import Path

SHIPPED = Path(__file__).parent.parent / "src" / "millrace" / "claims" / "measured" / "collectives.csv.gz"
MACHINES = ("a100_dgx", "h100_dgx")
COLLECTIVES = ("all_reduce", "send_recv")
HEADER = "machine,collective,devices,devices_each,bytes,median_us"
EVERY = 4

Series = tuple[str, str, int, int]


def main(folder: Path) -> None:
    """Write the thinned table, with neither a name nor a time in the header."""
    found: dict[Series, dict[int, float]] = defaultdict(dict)
    for machine in MACHINES:
        for collective in COLLECTIVES:
            with (folder / machine / f"{collective}.csv").open(newline="") as lines:
                for row in csv.DictReader(lines):
                    series = machine, collective, int(row["num_workers"]), int(row["devices_per_node"])
                    median_ms = float(row[f"time_stats.{collective}.median"])
                    found[series][int(row["size"])] = median_ms
    lines_out = [HEADER]
    for series, by_size in sorted(found.items()):
        name = ",".join(map(str, series))
        lines_out += [f"{name},{size},{by_size[size] * 1e3:.0f}" for size in sorted(by_size)[::EVERY]]
    packed = gzip.compress("\n".join([*lines_out, ""]).encode(), compresslevel=9, mtime=0)
    SHIPPED.write_bytes(packed)
    print(f"{SHIPPED.name}: {len(lines_out) - 1:,} rows, {len(packed):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
