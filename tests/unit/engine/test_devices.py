"""On whichever device there is, the engine computes what transformers computes on a processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from millrace.engine.device import checked_device
from millrace.engine.sampling import Sampling
from millrace.engine.weights import load_model
from tests.unit.engine.checkpoints import Bench, generate, logits, prompt, reference_tokens, save_checkpoint

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
def test_a_device_computes_what_transformers_computes(tmp_path: Path, family: str, device: str) -> None:
    reference = save_checkpoint(tmp_path / family, family)
    model = load_model(tmp_path / family, dtype=torch.float32, device=device)
    ids = prompt(37)
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits(model, ids), expected, atol=1e-4, rtol=1e-4)
    prompts = [prompt(tokens, seed=tokens) for tokens in (1, 5, 40)]
    greedy = [reference_tokens(reference, one, 6) for one in prompts]
    assert generate(model, prompts, 6, step_tokens=16) == greedy


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_draws_the_same_tokens_every_time(tmp_path: Path, device: str) -> None:
    save_checkpoint(tmp_path / "tiny")
    model = load_model(tmp_path / "tiny", dtype=torch.float32, device=device)
    asked = Sampling(seed=7, top_k=20, top_p=0.9, min_p=0.01, presence_penalty=1.0, logit_bias={3: 2.0})
    drawn = []
    for _ in range(2):
        bench = Bench(model)
        drawn.append(bench.add("q", prompt(9), 12, sampling=asked))
        bench.run()
    assert drawn[0].tokens == drawn[1].tokens


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("foo", "--device foo: no such kind of device; choose cpu, cuda or cuda:N"),
        ("cuda:x", "--device cuda:x: no such kind of device"),
        ("cuda:9999", "--device cuda:9999: "),
        ("cuda:99999999999999999999", "no such kind of device"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_what_is(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checked_device(name)
