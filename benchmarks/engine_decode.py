"""How fast one core decodes and reads prompts: the embedded engine next to transformers' `generate`.

Both run the demo model in float32 with one torch thread in this process, greedily, on the same prompts. Time
is processor time, the best of several rounds in which the two take turns, so other work on the machine moves
it little. Decoding is the time of long answers less the time of answers of one token.

    python benchmarks/engine_decode.py [--rounds 5] [--json benchmarks/results/engine_decode.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from millrace.core.draw import draw_below
from millrace.core.replica import Limits
from millrace.data import demo_model
from millrace.engine.detokenizer import ByteDetokenizer
from millrace.engine.executor import TorchExecutor
from millrace.engine.generation import generation
from millrace.engine.model import Model
from millrace.engine.weights import load_model
from millrace.policies.batching.split_fuse import Policy
from millrace.replica.replica import Replica

STREAMS = (1, 8, 32)
PROMPT_TOKENS, ANSWER_TOKENS = 64, 64
LONG_PROMPTS, LONG_TOKENS = 8, 512
LIMITS = Limits(step_tokens=512, kv_blocks=1024, context_tokens=2048, prefix_caching=False)

Prompts = list[list[int]]
Run = Callable[[Prompts, int], None]
"""Answers all prompts together with this many tokens each."""


def prompts(count: int, tokens: int, vocab: int) -> Prompts:
    """Prompts that have nothing in common."""
    return [[draw_below(vocab, "prompt", i, k) for k in range(tokens)] for i in range(count)]


def engine(model: Model) -> Run:
    """The embedded engine, without a server around it."""
    silent = ByteDetokenizer(lambda token: b"")

    def run(asked: Prompts, tokens: int) -> None:
        replica = Replica(LIMITS, Policy())
        for i, prompt in enumerate(asked):
            one = generation(str(i), prompt, tokens, detokenizer=silent, block_tokens=LIMITS.block_tokens)
            executor.add(one)
            replica.add(one.sequence)
        while replica.step(executor):
            pass
        for i in range(len(asked)):
            executor.remove(str(i))

    executor = TorchExecutor(model, kv_blocks=LIMITS.kv_blocks, block_tokens=LIMITS.block_tokens)
    return run


def peer(folder: Path) -> Run:
    """transformers' `generate` on one batch."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    options = {"do_sample": False, "temperature": None, "top_p": None, "pad_token_id": 0}

    def run(asked: Prompts, tokens: int) -> None:
        ids = torch.tensor(asked)
        length = {"max_new_tokens": tokens, "min_new_tokens": tokens}
        model.generate(ids, attention_mask=torch.ones_like(ids), **length, **options)

    return run


def seconds(run: Run, asked: Prompts, tokens: int) -> float:
    """Processor time of one run."""
    start_s = time.process_time()
    run(asked, tokens)
    return time.process_time() - start_s


def measure(bodies: dict[str, Run], asked: Prompts, tokens: int, rounds: int) -> dict[str, float]:
    """The best of several rounds for each body, in seconds; a first round only warms up."""
    best = dict.fromkeys(bodies, float("inf"))
    for turn in range(rounds + 1):
        for name, run in bodies.items():
            took_s = seconds(run, asked, tokens)
            best[name] = min(best[name], took_s) if turn else best[name]
    return best


def decode_rates(bodies: dict[str, Run], vocab: int, rounds: int) -> dict[str, dict[str, float]]:
    """Tokens per second by number of streams and body."""
    rates: dict[str, dict[str, float]] = {}
    for streams in STREAMS:
        asked = prompts(streams, PROMPT_TOKENS, vocab)
        short, long = (measure(bodies, asked, tokens, rounds) for tokens in (1, ANSWER_TOKENS))
        tokens = streams * (ANSWER_TOKENS - 1)
        rates[str(streams)] = {name: round(tokens / (long[name] - short[name])) for name in bodies}
    return rates


def prefill_rates(bodies: dict[str, Run], vocab: int, rounds: int) -> dict[str, float]:
    """Prompt tokens per second by body."""
    best = measure(bodies, prompts(LONG_PROMPTS, LONG_TOKENS, vocab), 1, rounds)
    return {name: round(LONG_PROMPTS * LONG_TOKENS / took_s) for name, took_s in best.items()}


def main() -> None:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(demo_model(), dtype=torch.float32)
    bodies = {"millrace": engine(model), "transformers": peer(demo_model())}
    vocab = model.config.vocab_size
    result = {
        "decode_tokens_per_s": decode_rates(bodies, vocab, args.rounds),
        "prefill_tokens_per_s": prefill_rates(bodies, vocab, args.rounds),
        "rounds": args.rounds,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, one core",
    }
    _print(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _print(result: dict[str, Any]) -> None:
    rows = [(f"decode, {streams} streams", rates) for streams, rates in result["decode_tokens_per_s"].items()]
    rows.append((f"prefill, {LONG_PROMPTS} x {LONG_TOKENS}", result["prefill_tokens_per_s"]))
    print(f"{'tokens per second of one core':<32}{'millrace':>12}{'transformers':>14}{'ratio':>8}")
    for label, rates in rows:
        ours, theirs = rates["millrace"], rates["transformers"]
        print(f"{label:<32}{ours:>12,}{theirs:>14,}{ours / theirs:>8.2f}")


if __name__ == "__main__":
    main()
