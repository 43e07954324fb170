"""What a checkpoint's `generation_config.json` says of how its authors meant it to be sampled."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from millrace.engine.config import ModelConfig
from millrace.engine.sampling import Sampling


class GenerationDefaults(Struct, frozen=True, kw_only=True):
    """Values for what a request does not say; `eos_token_id` are the tokens that end an answer."""

    eos_token_id: int | list[int] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    @property
    def sampling(self) -> Sampling:
        """The parameters a request starts from."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        return Sampling(**{name: value for name in names if (value := getattr(self, name)) is not None})


def read_defaults(folder: Path) -> GenerationDefaults:
    """Read `generation_config.json`; a checkpoint without one has no defaults."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return GenerationDefaults()
    try:
        return msgspec.json.decode(path.read_bytes(), type=GenerationDefaults)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not readable ({error}); download it again, or remove it") from error


def end_tokens(defaults: GenerationDefaults, config: ModelConfig) -> frozenset[int]:
    """The tokens that end an answer, from the generation's configuration or else the model's."""
    given = defaults.eos_token_id if defaults.eos_token_id is not None else config.eos_token_id
    return frozenset([given] if isinstance(given, int) else given or [])
