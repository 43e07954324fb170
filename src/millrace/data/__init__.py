"""Files that Millrace ships, and where to find them."""

from __future__ import annotations

from pathlib import Path


def demo_model() -> Path:
    """Return the folder of the demo model, a small Llama checkpoint in Hugging Face's layout."""
    return Path(__file__).parent / "demo_model"
