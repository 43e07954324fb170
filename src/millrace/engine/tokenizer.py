"""Text to tokens and back, from a checkpoint's `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from millrace.engine.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer


class TextTokenizer:
    """A checkpoint's tokenizer. No token stands for more than `longest_token_chars`, if that is known."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token for token, one in added.items() if one.special)
        self._byte_level = _is_byte_level(tokenizer)
        self._bytes: dict[int, bytes] = {}
        # Tokens of other kinds may stand for any length of text: unknown words, stripped spaces.
        self.longest_token_chars = max(map(len, tokenizer.get_vocab())) if self._byte_level else None

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer:
        """Read `tokenizer.json`; ValueError if it is missing or unreadable."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{path}: not found; save the tokenizer in its fast form beside the checkpoint")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises nothing more specific
            raise ValueError(f"{path}: not a readable tokenizer ({error}); download it again") from error

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Tokens of a text; `special` adds what the model expects around it, such as its first token."""
        # Only for a batch does tokenizers let other threads go on meanwhile.
        (encoded,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        ids: list[int] = encoded.ids
        return ids

    def decode(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of all tokens at once."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=skip_special)
        return text

    def detokenizer(self, *, skip_special: bool = True) -> Detokenizer:
        """A fresh detokenizer for one sequence."""
        if not self._byte_level:
            return WindowDetokenizer(lambda tokens: self.decode(tokens, skip_special=skip_special))
        return ByteDetokenizer(self._shown_bytes if skip_special else self.token_bytes)

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, which may be a part of a character."""
        if token not in self._bytes:
            self._bytes[token] = self._bytes_of(token)
        return self._bytes[token]

    def _shown_bytes(self, token: int) -> bytes:
        return b"" if token in self._special else self.token_bytes(token)

    def _bytes_of(self, token: int) -> bytes:
        piece = self._tokenizer.id_to_token(token) or ""
        if self._byte_level and all(char in _BYTES for char in piece):
            return bytes(_BYTES[char] for char in piece)
        return piece.encode() if self._byte_level else self.decode([token]).encode()


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    if tokenizer.decoder is None:
        return False
    decoder = json.loads(tokenizer.decoder.__getstate__())
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return [step["type"] for step in steps] == ["ByteLevel"]


def _byte_alphabet() -> dict[str, int]:
    """The printable characters by which GPT-2's vocabulary, and all byte-level ones since, write bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()
