"""Whatever a step computes, and whoever gives way, the answers of an engine are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from millrace.core.batch import informed
from millrace.core.cost import StepShape
from millrace.core.cost.learned import Learned
from millrace.engine.model import Model
from millrace.engine.weights import load_model
from millrace.policies import load
from tests.unit.engine.checkpoints import Bench, generate, prompt, save_checkpoint

PROMPTS = [prompt(tokens, seed) for seed, tokens in enumerate((30, 5, 60, 12, 44, 3))]
ANSWER_TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A tiny model."""
    folder: Path = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(folder)
    return load_model(folder, dtype=torch.float32)


@pytest.mark.parametrize(
    "policy",
    ["prefill_first", "decode_first(beside=1)", "adaptive_budget(least_tokens=3)", "colocated(tpot_s=0.004)"],
)
def test_answers_do_not_depend_on_the_batching_policy(model: Model, policy: str) -> None:
    times = Learned()
    bench = Bench(
        model, batching=informed(load("batching", policy), times), step_tokens=16, sequences=3, kv_blocks=32
    )
    running = []
    for number, asked in enumerate(PROMPTS):
        running.append(bench.add(str(number), asked, ANSWER_TOKENS, priority=-(number % 2 == 0)))
        for _ in range(4):
            see_a_step(bench, times)
    while see_a_step(bench, times):
        pass
    told = [one.tokens[one.sequence.prompt_tokens :] for one in running]
    assert told == [generate(model, [asked], ANSWER_TOKENS)[0] for asked in PROMPTS]
    assert times.step_s(StepShape(decodes=1, decode_context_tokens=9, emits=1)) is not None


def see_a_step(bench: Bench, times: Learned) -> bool:
    """Make a step, and tell how long it took; False if there is nothing to do."""
    step = bench.replica.plan()
    if step is None:
        return False
    result = bench.executor.run(step)
    bench.replica.commit(step, result)
    times.see(step.shape, result.seconds)
    return True
