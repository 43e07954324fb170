"""What this engine cannot do, it says before it loads anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.replica import Limits
from millrace.engine.settings import EngineSettings


def test_an_engine_without_adapters_takes_no_limit_on_them() -> None:
    with pytest.raises(ValueError, match="no low-rank adapters"):
        EngineSettings(model=Path("a-model"), limits=Limits(adapters=4))
