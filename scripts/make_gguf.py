"""Writes a checkpoint of the Llama family as GGUF, in float32, so that llama.cpp serves it token for token.

For checkpoints like the demo model: byte-level BPE, and no scaling of the rotation. Run it with a Python that
has `gguf` (PyPI): `.venv-engines/bin/python scripts/make_gguf.py src/millrace/data/demo_model demo.gguf`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from millrace.engine.checkpoint import Checkpoint
from millrace.engine.config import ModelConfig, read_config
from millrace.engine.rope import interleave

GPT2_SPLIT = "gpt-2"  # llama.cpp's name for how a byte-level BPE cuts text into words


def write(folder: Path, file: Path) -> None:
    """Write the checkpoint in a folder to a GGUF file. Raises ValueError for what would come out wrong."""
    config = read_config(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    _check(config, tokenizer)
    writer = gguf.GGUFWriter(file, "llama")
    _add_sizes(writer, config)
    _add_tokenizer(writer, tokenizer, config, json.loads((folder / "tokenizer_config.json").read_bytes()))
    with Checkpoint(folder, dtype=torch.float32) as checkpoint:
        for name, tensor in _tensors(config, checkpoint):
            writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check(config: ModelConfig, tokenizer: dict[str, Any]) -> None:
    if config.family != "llama" or config.rope.kind != "default":
        raise ValueError(f"config.json: {config.family} with {config.rope.kind} rotation; only plain Llama")
    words = tokenizer["pre_tokenizer"] or {}
    if tokenizer["model"]["type"] != "BPE" or words.get("type") != "ByteLevel" or tokenizer["normalizer"]:
        raise ValueError("tokenizer.json: only byte-level BPE, without a normalizer, is written")


def _add_sizes(writer: Any, config: ModelConfig) -> None:
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope.theta)


def _add_tokenizer(
    writer: Any, tokenizer: dict[str, Any], config: ModelConfig, settings: dict[str, Any]
) -> None:
    model, special = tokenizer["model"], {token["content"] for token in tokenizer["added_tokens"]}
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if len(words) != config.vocab_size:
        raise ValueError(f"tokenizer.json has {len(words)} tokens, config.json says {config.vocab_size}")
    kinds = [gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word in words]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(GPT2_SPLIT)
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(model["vocab"][settings["bos_token"]])
    writer.add_eos_token_id(model["vocab"][settings["eos_token"]])
    writer.add_pad_token_id(model["vocab"][settings["pad_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])


def _tensors(config: ModelConfig, checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield GGUF's tensors by name; rows of what makes queries and keys in llama.cpp's order."""
    hidden, ffn = config.hidden_size, config.intermediate_size
    queries, keys = config.num_attention_heads * config.head_size, config.kv_heads * config.head_size
    words = (config.vocab_size, hidden)
    yield "token_embd.weight", checkpoint.tensor("model.embed_tokens.weight", words)
    yield "output_norm.weight", checkpoint.tensor("model.norm.weight", (hidden,))
    if not config.tie_word_embeddings:
        yield "output.weight", checkpoint.tensor("lm_head.weight", words)
    shapes = {
        "attn_norm": ("input_layernorm", (hidden,)),
        "attn_q": ("self_attn.q_proj", (queries, hidden)),
        "attn_k": ("self_attn.k_proj", (keys, hidden)),
        "attn_v": ("self_attn.v_proj", (keys, hidden)),
        "attn_output": ("self_attn.o_proj", (hidden, queries)),
        "ffn_norm": ("post_attention_layernorm", (hidden,)),
        "ffn_gate": ("mlp.gate_proj", (ffn, hidden)),
        "ffn_up": ("mlp.up_proj", (ffn, hidden)),
        "ffn_down": ("mlp.down_proj", (hidden, ffn)),
    }
    for layer in range(config.num_hidden_layers):
        for name, (theirs, shape) in shapes.items():
            tensor = checkpoint.tensor(f"model.layers.{layer}.{theirs}.weight", shape)
            rotated = name in ("attn_q", "attn_k")
            yield f"blk.{layer}.{name}.weight", interleave(tensor, config.head_size) if rotated else tensor


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
