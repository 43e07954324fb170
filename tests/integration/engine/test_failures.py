"""A step that fails costs the answers it was for; an engine that cannot go on ends with 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from millrace.engine.loop import MOST_FAILURES
from tests.integration.engine.process import MODEL, Engine, eventually, started

SEVEN, EIGHT, NINE = ([5] * tokens for tokens in (7, 8, 9))


@contextmanager
def failing(model: Path) -> Iterator[Engine]:
    with started([sys.executable, "-m", "tests.integration.engine.failing_engine", str(model)]) as engine:
        yield engine


def complete(engine: Engine, prompt: list[int], **options: Any) -> Any:
    return engine.post("/v1/completions", {"prompt": prompt, "max_tokens": 3, "temperature": 0, **options})


def test_an_engine_serves_on_when_steps_fail_and_ends_when_they_keep_failing(model: Path) -> None:
    with failing(model) as engine:
        stream = engine.client.completions.create(
            model=MODEL, prompt=[5] * 3, max_tokens=60, stream=True, extra_body={"ignore_eos": True}
        )
        first = next(stream)
        for _ in range(MOST_FAILURES):
            refused = complete(engine, SEVEN, n=3)
            assert (refused["status"], refused["error"]["code"]) == (500, "step_failed")
            assert complete(engine, [5] * 5)["usage"]["completion_tokens"] == 3
        with pytest.raises(openai.APIError, match="could not compute") as cut:
            list(engine.client.completions.create(model=MODEL, prompt=SEVEN, stream=True))
        assert cut.value.code == "step_failed"
        assert engine.get("/health") == ""
        assert first.choices[0].index == 0
        for _ in range(MOST_FAILURES):
            ended = complete(engine, SEVEN)
        assert ended["error"]["code"] == "engine_failed"
        assert engine.process.wait(20) == 1
    stream.close()


@pytest.mark.parametrize("prompt", [EIGHT, NINE], ids=["memory", "device"])
def test_an_engine_without_memory_or_device_ends_at_once(model: Path, prompt: list[int]) -> None:
    with failing(model) as engine:
        assert json.loads(engine.get("/version"))
        assert complete(engine, prompt)["error"]["code"] == "engine_failed"
        assert eventually(lambda: engine.process.poll() == 1)
