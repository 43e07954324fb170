"""The engine computes what transformers computes, however a sequence is batched, chunked or cached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from millrace.engine.model import Model
from millrace.engine.sampling import Logprob, Sampling
from millrace.engine.weights import load_model
from tests.unit.engine.checkpoints import (
    LLAMA3,
    SIZES,
    YARN,
    Bench,
    generate,
    logits,
    prompt,
    reference_tokens,
    save_checkpoint,
)

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "head_dim": 16}),
    "llama-every-head-its-own": (
        "Llama",
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-3.1-rope": ("Llama", {"rope_scaling": LLAMA3}),
    "llama-linear-rope": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "qwen2": ("Qwen2", {}),
    "qwen2-yarn": ("Qwen2", {"rope_scaling": YARN, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
}
Pair = tuple[Any, Model]


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """transformers' model and ours, of the same checkpoint."""
    family, fields = CASES[request.param]
    folder = tmp_path_factory.mktemp("checkpoints") / request.param
    reference = save_checkpoint(folder, family, **fields)
    return reference, load_model(folder, dtype=torch.float32)


def test_all_logits_of_all_positions_are_those_of_transformers(pair: Pair) -> None:
    reference, model = pair
    ids = prompt(37)
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits(model, ids), expected, atol=1e-4, rtol=1e-4)


def test_log_probabilities_of_the_whole_vocabulary_are_those_of_transformers(pair: Pair) -> None:
    reference, model = pair
    bench, ids = Bench(model), prompt(37)
    logprobs: list[Logprob] = []
    one = bench.add("q", ids, 6, sampling=Sampling(temperature=0.0, logprobs=SIZES["vocab_size"]))
    while bench.replica.step(bench.executor):
        logprobs += one.take().logprobs
    with torch.inference_mode():
        expected = reference(torch.tensor([one.tokens[:-1]])).logits[0, len(ids) - 1 :].log_softmax(-1)
    told = torch.tensor([[value for _, value in sorted(got.top)] for got in logprobs])
    torch.testing.assert_close(told, expected, atol=1e-4, rtol=1e-4)
    chosen = torch.tensor([[got.token, got.top[0][0]] for got in logprobs])
    assert torch.equal(chosen, expected.argmax(-1, keepdim=True).expand(-1, 2))
    assert torch.equal(torch.tensor(one.tokens[len(ids) :]), chosen[:, 0])


def test_greedy_tokens_are_those_of_transformers_when_sequences_run_together(pair: Pair) -> None:
    reference, model = pair
    prompts = [prompt(tokens, seed=tokens) for tokens in (1, 2, 4, 5, 23, 40)]
    expected = [reference_tokens(reference, ids, 9) for ids in prompts]
    assert generate(model, prompts, 9) == expected


def test_greedy_tokens_do_not_change_when_prompts_are_computed_in_chunks(pair: Pair) -> None:
    reference, model = pair
    prompts = [prompt(tokens, seed=tokens) for tokens in (31, 3, 18)]
    expected = [reference_tokens(reference, ids, 5) for ids in prompts]
    assert generate(model, prompts, 5, step_tokens=7) == expected


def test_greedy_tokens_do_not_change_when_sequences_are_preempted(pair: Pair) -> None:
    reference, model = pair
    prompts = [prompt(12, seed=seed) for seed in range(3)]
    bench = Bench(model, kv_blocks=12)
    running = [bench.add(str(seed), ids, 16) for seed, ids in enumerate(prompts)]
    bench.run()
    assert bench.replica.preemptions
    assert [one.tokens[12:] for one in running] == [reference_tokens(reference, ids, 16) for ids in prompts]


def test_a_cached_prefix_gives_the_same_tokens_and_is_not_computed_again(pair: Pair) -> None:
    reference, model = pair
    bench, shared = Bench(model), prompt(21)
    first = bench.add("first", shared, 8)
    bench.run()
    longer = [*first.tokens, *prompt(5, seed=9)]
    second = bench.add("second", longer, 8)
    bench.run()
    assert second.sequence.cached_tokens == 28
    assert second.tokens[len(longer) :] == reference_tokens(reference, longer, 8)


def test_sequences_of_very_different_lengths_decode_together(pair: Pair) -> None:
    reference, model = pair
    prompts = [prompt(tokens, seed=tokens) for tokens in (3, 200, 60, 240)]
    expected = [reference_tokens(reference, ids, 4) for ids in prompts]
    assert generate(model, prompts, 4, kv_blocks=160) == expected


def test_a_sharded_checkpoint_in_bfloat16_loads_like_the_single_file(tmp_path: Path) -> None:
    reference = save_checkpoint(tmp_path / "one").bfloat16()
    reference.save_pretrained(tmp_path / "one")
    reference.save_pretrained(tmp_path / "many", max_shard_size="16KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (load_model(tmp_path / name, dtype=torch.float32) for name in ("one", "many"))
    assert generate(one, [prompt(20)], 8) == generate(many, [prompt(20)], 8)


def test_bfloat16_agrees_with_float32_on_the_likeliest_token_of_a_plain_prompt(tmp_path: Path) -> None:
    reference = save_checkpoint(tmp_path / "model")
    model = load_model(tmp_path / "model", dtype=torch.bfloat16)
    ids = prompt(20)
    exact = reference(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    bench = Bench(model)
    one = bench.add("q", ids, 1, sampling=Sampling(temperature=0.0, logprobs=1))
    bench.run()
    (got,) = one.take().logprobs
    assert abs(got.logprob - exact.max().item()) < 0.15
