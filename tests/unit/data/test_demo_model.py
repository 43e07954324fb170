"""The demo model that Millrace ships: complete, small, loadable, and trained."""

from __future__ import annotations

import json
import re
import sysconfig
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

from millrace.data import demo_model

FOLDER = demo_model()
LIMIT_BYTES = 12_000_000
END, END_OF_TEXT = 3, 0
# The training script holds this module out by its name. Its start, mostly prose, has a loss of 3.9 under the
# shipped model, 5.2 under one of 240 steps, and ln(4096) = 8.3 before any.
HELD_OUT_MODULE, LIMIT_NATS_PER_TOKEN = "heapq.py", 4.5


@cache
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@torch.no_grad()
def greedy(prompt: str, max_tokens: int) -> list[int]:
    ids, written = tokenizer().encode(prompt).ids, list[int]()
    while len(written) < max_tokens and END not in written:
        written.append(int(model()(torch.tensor([ids + written])).logits[0, -1].argmax()))
    return written


def test_the_folder_holds_a_whole_hugging_face_model_and_no_code() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_folder_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= LIMIT_BYTES


@given(text=st.text())
def test_the_tokenizer_returns_every_text_unchanged(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text).ids) == text


def test_the_chat_template_puts_the_system_message_before_the_first_user_turn() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": " Bye\n"},
    ]
    text = AutoTokenizer.from_pretrained(FOLDER).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    expected = "<|user|>Be brief.\n\nHi<|end|><|assistant|>Hello!<|end|><|user|> Bye\n<|end|><|assistant|>"
    assert text == expected


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_generation_stops_at_the_end_of_a_turn_and_of_a_text(name: str) -> None:
    stops = json.loads((FOLDER / name).read_text())["eos_token_id"]
    assert [tokenizer().id_to_token(stop) for stop in stops] == ["<|end|>", "<|endoftext|>"]


def test_a_module_that_was_never_seen_is_far_more_likely_than_under_an_untrained_model() -> None:
    source = Path(sysconfig.get_paths()["stdlib"], HELD_OUT_MODULE).read_text()
    ids = torch.tensor([tokenizer().encode(source).ids[:1_024]])
    with torch.no_grad():
        loss = model()(ids, labels=ids).loss
    assert float(loss) < LIMIT_NATS_PER_TOKEN


def test_a_greedy_completion_after_def_is_the_head_of_a_function() -> None:
    prompt = "import os\n\ndef "
    assert re.match(r"[A-Za-z_]\w*\(\w+[,)]", tokenizer().decode(greedy(prompt, 20)))


def test_a_greeting_is_answered_and_the_answer_ends() -> None:
    answer = greedy("<|user|>Hello!<|end|><|assistant|>", 60)
    assert answer[-1] == END
    assert len(answer) > 1
