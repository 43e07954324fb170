"""An engine starts as it was told to, or says which option or file is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millrace.core.replica import Limits
from millrace.engine.engine import Engine, load_engine
from millrace.engine.settings import EngineSettings
from millrace.policies.batching.split_fuse import Policy
from tests.unit.engine.checkpoints import save_checkpoint
from tests.unit.engine.texts import save_tokenizer

POSITIONS = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(path, vocab_size=400, max_position_embeddings=POSITIONS)
    save_tokenizer(path)
    return path


def loaded(folder: Path, *, kv_blocks: int = 64, **options: Any) -> Engine:
    limits = Limits(kv_blocks=kv_blocks, block_tokens=4, context_tokens=2048)
    return load_engine(EngineSettings(model=folder, limits=limits, **options), Policy())


@pytest.mark.parametrize(("asked", "served"), [(None, POSITIONS), (100, 100), (POSITIONS, POSITIONS)])
def test_a_sequence_may_be_as_long_as_asked_or_as_the_model_allows(
    folder: Path, asked: int | None, served: int
) -> None:
    engine = loaded(folder, context_tokens=asked)
    assert engine.service.context_tokens == engine.replica.limits.context_tokens == served


def test_a_length_beyond_the_model_is_refused_with_its_maximum(folder: Path) -> None:
    with pytest.raises(
        ValueError, match="--max-model-len 999999: this model knows 256 positions; give at most 256"
    ):
        loaded(folder, context_tokens=999_999)


def test_a_length_beyond_the_kv_cache_is_refused_with_the_blocks_it_takes(folder: Path) -> None:
    with pytest.raises(
        ValueError, match="--max-model-len 200: the KV cache holds 41 tokens; give --kv-blocks 50"
    ):
        loaded(folder, kv_blocks=10, context_tokens=200)
    assert loaded(folder, kv_blocks=50, context_tokens=200).service.context_tokens == 200


def test_a_device_that_is_not_there_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="--device foo: no such kind of device; choose cpu, cuda or cuda:N"):
        loaded(Path("nowhere"), device="foo")


@pytest.mark.parametrize("content", [b'{"architectures": ["Llama', b"\xff", b"", b'{"x": ' + b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_file_that_is_broken_is_named_with_what_to_do(
    tmp_path: Path, folder: Path, name: str, content: bytes
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/{name}: not readable .*download it again"):
        loaded(tmp_path)
