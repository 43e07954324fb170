"""Writes the demo model as a Hugging Face folder: configuration, weights, tokenizer and chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from tokenizers import Tokenizer

from demo_model.chat import CHAT_TEMPLATE, END, END_OF_TEXT, SPECIAL_TOKENS
from demo_model.network import Llama, Shape


@dataclass(frozen=True)
class Ids:
    """The ids of the tokens at which generation ends, and the one that stands before a document."""

    stop: list[int]
    begin: int


def save_model(folder: Path, model: Llama, tokenizer: Tokenizer) -> None:
    """Write every file except the model card into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    # The tokenizer's training numbers the special tokens first, in their order.
    end, end_of_text = SPECIAL_TOKENS.index(END), SPECIAL_TOKENS.index(END_OF_TEXT)
    ids = Ids(stop=[end, end_of_text], begin=end_of_text)
    weights = save(dict(model.state_dict()), {"format": "pt"})
    (folder / "model.safetensors").write_bytes(weights)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write(folder / "config.json", _config(model.model.shape, ids))
    _write(folder / "generation_config.json", _generation_config(ids))
    _write(folder / "tokenizer_config.json", _tokenizer_config(model.model.shape))


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _config(shape: Shape, ids: Ids) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "max_position_embeddings": shape.max_positions,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_epsilon,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": ids.begin,
        "eos_token_id": ids.stop,
    }


def _generation_config(ids: Ids) -> dict[str, object]:
    return {
        "bos_token_id": ids.begin,
        "eos_token_id": ids.stop,
        "pad_token_id": ids.begin,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
    }


def _tokenizer_config(shape: Shape) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.max_positions,
        "bos_token": END_OF_TEXT,
        "eos_token": END,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
