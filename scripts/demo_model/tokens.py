"""The demo model's byte-level BPE tokenizer, and the token streams that it is trained on."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from demo_model.chat import END_OF_TEXT, SPECIAL_TOKENS

PIECE_CHARS = 200


def train_tokenizer(documents: list[str], vocab: int) -> Tokenizer:
    """Train a byte-level BPE with `vocab` entries, the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def cut(text: str) -> list[str]:
    """Cut a text into pieces to encode one by one: a prompt, too, may end in the middle of a usual token."""
    return [text[i : i + PIECE_CHARS] for i in range(0, len(text), PIECE_CHARS)]


def stream_of(tokenizer: Tokenizer, documents: list[list[str]], seed: int) -> Tensor:
    """Encode documents, each a list of pieces, in a shuffled order into one stream of token ids.

    An end-of-text token follows each document.
    """
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed)).tolist()
    pieces = [piece for i in order for piece in [*documents[i], END_OF_TEXT]]
    return torch.tensor([token for piece in tokenizer.encode_batch(pieces) for token in piece.ids])
