"""A small byte-level tokenizer, trained on the spot, for tests that need text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "The mill race turns the wheel, and the wheel turns the stone. " * 3,
    "héllo wörld, 日本語 ☃ 👩‍🚀 naïve café",
]
END, USER, THINK = "<|end|>", "<|user|>", "<think now>"


@cache
def byte_level() -> Tokenizer:
    """128 entries short of nothing: all bytes, some merges, two special tokens and one added one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END, USER],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(THINK, special=False)])
    return tokenizer


@cache
def sentence_pieces() -> Tokenizer:
    """In the manner of Llama 2: words begin with a marker, unknown characters fall back to bytes."""
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁helo wrd,日"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Write the byte-level tokenizer into a checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    byte_level().save(str(folder / "tokenizer.json"))
