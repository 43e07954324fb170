"""Settings of the engine's tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny matrices on a busy machine: more threads would only wait for each other."""
    torch.set_num_threads(1)
