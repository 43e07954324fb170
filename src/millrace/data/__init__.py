"""Files that Millrace ships, and where to find them."""

from __future__ import annotations

from pathlib import Path

from millrace.data.files import calibrations, open_calibration, open_trace

__all__ = ["calibrations", "demo_model", "open_calibration", "open_trace"]


def demo_model() -> Path:
    """Return the folder of the demo model, a small Llama checkpoint in Hugging Face's layout."""
    return Path(__file__).parent / "demo_model"
