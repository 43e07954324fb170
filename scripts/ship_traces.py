"""Compress the traces that Millrace ships, byte for byte the same from the same files.

Run it as `python scripts/ship_traces.py FOLDER`, where FOLDER holds azure_conv_2023.csv (AzurePublicDataset,
AzureLLMInferenceTrace_conv) and mooncake_conversation.jsonl (kvcache-ai/Mooncake, FAST'25 release).
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

SHIPPED = Path(__file__).parent.parent / "src" / "millrace" / "data" / "traces"
NAMES = ("azure_conv_2023.csv", "mooncake_conversation.jsonl")


def main(folder: Path) -> None:
    """Write each trace, with neither a name nor a time in the header."""
    for name in NAMES:
        packed = gzip.compress((folder / name).read_bytes(), compresslevel=9, mtime=0)
        (SHIPPED / f"{name}.gz").write_bytes(packed)
        print(f"{name}.gz: {len(packed):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
