"""One line of JSON per step to fit cost models to: its shape, its seconds, when it ended, CPU so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from millrace.replica.executor import Step, StepResult

StepObserver = Callable[[Step, StepResult], None]


@contextmanager
def step_log(path: Path | None) -> Iterator[StepObserver]:
    """An observer that appends to the file, or ignores every step if there is none."""
    if path is None:
        yield lambda step, result: None
        return
    with path.open("ab") as file:

        def write(step: Step, result: StepResult) -> None:
            fields = msgspec.structs.asdict(step.shape) | {
                "seconds": result.seconds,
                "ended_s": time.monotonic(),
                "cpu_s": time.process_time(),
            }
            file.write(msgspec.json.encode(fields) + b"\n")

        yield write
