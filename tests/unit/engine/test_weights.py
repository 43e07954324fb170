"""A checkpoint that cannot be run is refused with the file, the key and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from millrace.engine.weights import load_model
from tests.unit.engine.checkpoints import save_checkpoint


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that can be run."""
    folder = tmp_path_factory.mktemp("original") / "model"
    save_checkpoint(folder, "Qwen2")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoiled."""
    for path in original.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as refused:
        load_model(folder, dtype=torch.float32)
    return str(refused.value)


def rewrite(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architectures: .*choose one of LlamaForCausalLM"),
        ({"architectures": []}, "architectures"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window: .*set it to false"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: "),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide 4"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type: 'longrope'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5"),
        ({"rope_parameters": {"rope_type": "linear"}}, "rope_scaling .*'linear'.* needs .*'factor'"),
        ({"hidden_size": "wide"}, "config.json: Expected `int`, got `str` - at `\\$.hidden_size`"),
        ({"vocab_size": 200}, "model.embed_tokens.weight has shape .*config.json implies \\(200, 32\\)"),
        ({"num_hidden_layers": 3}, "no tensor 'model.layers.2.input_layernorm.weight'"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(
    folder: Path, fields: dict[str, Any], told: str
) -> None:
    rewrite(folder, **fields)
    with pytest.raises(ValueError, match=told):
        load_model(folder, dtype=torch.float32)


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    assert "config.json: not found" in refusal(tmp_path)


def test_weights_in_another_format_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "convert it to safetensors" in refusal(folder)


def test_a_truncated_file_is_refused_by_name(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path}: not a readable safetensors file" in refusal(folder)


def test_a_shard_that_is_missing_is_refused_by_name(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "lost.safetensors"}}')
    assert "lost.safetensors: named in model.safetensors.index.json but not found" in refusal(folder)


def test_an_index_that_is_not_one_is_refused(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "not an index of shards" in refusal(folder)


def test_the_old_way_to_write_rope_scaling_means_the_same(folder: Path) -> None:
    scaling = {"factor": 4.0, "rope_theta": 5000.0}
    rewrite(folder, rope_parameters={"rope_type": "linear", **scaling})
    new = load_model(folder, dtype=torch.float32)
    rewrite(folder, rope_parameters=None, rope_theta=5000.0, rope_scaling={"type": "linear", "factor": 4.0})
    old = load_model(folder, dtype=torch.float32)
    assert torch.equal(new.rotations, old.rotations)


def test_rotations_are_only_made_for_the_context_that_is_served(folder: Path) -> None:
    assert load_model(folder, dtype=torch.float32, context_tokens=16).rotations.shape[0] == 16


def test_weights_without_a_bias_run_without_one(folder: Path) -> None:
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.endswith(".bias")}
    save_file(kept, path)
    assert load_model(folder, dtype=torch.float32).layers
