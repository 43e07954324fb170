"""Pick a few of the operator times that `fit_efficiency.py` fits, to hold the roofline against in tests.

Run it as `python scripts/sample_operator_times.py PROFILES FOLDER`, with the PROFILES of that script.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fit_efficiency import (
    SERVING,
    SERVING_MODELS,
    VIDUR,
    VIDUR_MODELS,
    Array,
    attention,
    layer,
    serving_layers,
    vidur_layers,
)
from millrace.core.catalogue import model
from millrace.core.model import ModelSpec

SOURCE = "# Operator times of microsoft/vidur and casys-kaist/LLMServingSim, both MIT"
BATCHES = (1, 8, 32, 128, 512, 2048, 4096)


def main(profiles: Path, folder: Path) -> None:
    """Write layers of single devices at some batch sizes, and some rows of the attention tables."""
    layers, looks = [], []
    for gpu, name in VIDUR.items():
        for path in sorted((profiles / "compute" / gpu).glob("*/mlp.csv")):
            spec = model(VIDUR_MODELS[path.parent.name])
            layers += [(name, spec.name, *row) for row in single(vidur_layers(path, spec), spec)]
    for gpu, name in SERVING.items():
        for path in sorted((profiles / "serving" / gpu).glob("*/*/bf16/tp1")):
            if path.parent.parent.name in SERVING_MODELS:
                spec = model(SERVING_MODELS[path.parent.parent.name])
                layers += [(name, spec.name, *row) for row in single(serving_layers(path, spec, 1), spec)]
                rows = attention(path, spec, 1)
                pure = (rows[:, 0] == 0) | (rows[:, 2] == 0)
                rows = np.concatenate([rows[pure][::10], rows[~pure][::300]])
                looks += [(name, spec.name, *row[:4].astype(int), f"{row[6]:.4g}") for row in rows]
    for name, columns, table in (
        ("measured_layers.csv", "device,model,tokens,seconds", layers),
        ("measured_attention.csv", "device,model,chunk,cached,decodes,context_each,seconds", looks),
    ):
        lines = [SOURCE, columns, *(",".join(map(str, row)) for row in table)]
        (folder / name).write_text("\n".join(lines) + "\n")


def single(rows: Array, spec: ModelSpec) -> list[tuple[int, str]]:
    """Return tokens and seconds of the rows of a whole layer on one device."""
    whole = layer(spec, 1)[0]
    found = {int(r[0]): f"{r[3] + r[4]:.4g}" for r in rows if r[1] == whole and int(r[0]) in BATCHES}
    return sorted(found.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
