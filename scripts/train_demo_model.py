"""Trains the demo model that Millrace ships: a small Llama on the standard library's own source.

    python scripts/train_demo_model.py --out src/millrace/data/demo_model

It takes less than 20 minutes on two cores. The result depends on the versions of Python and PyTorch and
on the processor, and on nothing else: files are read in sorted order, and seeds, batches and steps are fixed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo_model.card import Facts, card
from demo_model.chat import chat_documents
from demo_model.corpus import SourceFile, standard_library
from demo_model.export import save_model
from demo_model.network import Llama, Shape
from demo_model.samples import PROMPTS, sample
from demo_model.tokens import cut, stream_of, train_tokenizer
from demo_model.training import Outcome, Recipe, mean_loss, train

THREADS = 2


@dataclass(frozen=True)
class Corpus:
    """The files and chats, and the token streams made from them."""

    seen: list[SourceFile]
    held_out: list[SourceFile]
    chats: list[str]
    tokenizer: Tokenizer
    chat_tokens: int
    train_stream: Tensor
    validation_stream: Tensor


def prepare(shape: Shape, seed: int) -> Corpus:
    """Read the standard library, train the tokenizer on what is not held out, and encode everything."""
    files = standard_library()
    seen = [file for file in files if not file.held_out]
    held_out = [file for file in files if file.held_out]
    chats = chat_documents(seen)
    tokenizer = train_tokenizer([file.text for file in seen], shape.vocab)
    documents = [cut(file.text) for file in seen] + [[chat] for chat in chats]
    return Corpus(
        seen=seen,
        held_out=held_out,
        chats=chats,
        tokenizer=tokenizer,
        chat_tokens=len(stream_of(tokenizer, [[chat] for chat in chats], seed)),
        train_stream=stream_of(tokenizer, documents, seed),
        validation_stream=stream_of(tokenizer, [[file.text] for file in held_out], seed),
    )


def facts_of(corpus: Corpus, model: Llama) -> Facts:
    """Count and measure what the model card states besides the training itself."""
    return Facts(
        files=len(corpus.seen),
        source_bytes=sum(len(file.text.encode()) for file in corpus.seen),
        held_out=[file.path for file in corpus.held_out],
        held_out_bytes=sum(len(file.text.encode()) for file in corpus.held_out),
        chats=len(corpus.chats),
        chat_tokens=corpus.chat_tokens,
        stream_tokens=len(corpus.train_stream),
        validation_tokens=len(corpus.validation_stream),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        long_loss=mean_loss(model, corpus.validation_stream, model.model.shape.max_positions),
        samples=[(prompt, sample(model, corpus.tokenizer, prompt, seed=0)) for prompt in PROMPTS],
    )


def build(out: Path, shape: Shape, recipe: Recipe) -> Outcome:
    """Train tokenizer and network, and write the model folder."""
    corpus = prepare(shape, recipe.seed)
    torch.manual_seed(recipe.seed)
    model = Llama(shape).bfloat16()
    outcome = train(model, corpus.train_stream, corpus.validation_stream, recipe)
    save_model(out, model, corpus.tokenizer)
    (out / "README.md").write_text(card(shape, recipe, outcome, facts_of(corpus, model)), "utf-8")
    return outcome


def main() -> None:
    """Parse the command line, build the model, and say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--steps", type=int, default=Recipe.steps, help="fewer steps give a rough model quickly"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    print(build(arguments.out, Shape(), Recipe(steps=arguments.steps)), file=sys.stderr)


if __name__ == "__main__":
    main()
