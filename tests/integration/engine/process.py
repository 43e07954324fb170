"""A real engine process, serving a tiny random checkpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI

from tests.unit.engine.checkpoints import save_checkpoint
from tests.unit.engine.texts import END, USER, byte_level, save_tokenizer

MODEL = "tiny"
CONTEXT_TOKENS = 128
TEMPLATE = (
    "{% for m in messages %}{{ '<|user|>' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ eos_token }}{% endif %}"
)
OPTIONS = ("--threads", "1", "--served-model-name", MODEL, "--kv-blocks", "64", "--block-size", "4")


@dataclass(frozen=True)
class Engine:
    """A process that serves."""

    url: str
    process: subprocess.Popen[str]

    @property
    def client(self) -> OpenAI:
        """A client that hides no failure by trying again."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=30)

    def get(self, path: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as response:
            body: bytes = response.read()
            return body.decode()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        """The JSON that a POST brings, also if it is refused."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", raw, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as refused:
            return json.load(refused) | {"status": refused.code}

    def metric(self, name: str, label: str = "") -> float:
        """The value of a vLLM metric now."""
        lines = self.get("/metrics").splitlines()
        return next(
            float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}{{") and label in line
        )


def save_model(folder: Path) -> Path:
    """A checkpoint with a tokenizer and a chat template, whose greedy text is random but always the same."""
    end = byte_level().token_to_id(END)
    vocab = byte_level().get_vocab_size()
    save_checkpoint(folder, vocab_size=vocab, max_position_embeddings=CONTEXT_TOKENS, eos_token_id=end)
    save_tokenizer(folder)
    config = {"chat_template": TEMPLATE, "eos_token": END, "user_token": USER}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def command(folder: Path, *options: str) -> list[str]:
    """The command line of an engine on a free port."""
    own = ["engine", "--model", str(folder), "--port", "0", *OPTIONS, *options]
    return [sys.executable, "-m", "millrace", *own]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Engine]:
    """Start an engine, wait until it is ready, and end it."""
    with started(command(folder, *options)) as engine:
        yield engine


@contextmanager
def started(argv: list[str]) -> Iterator[Engine]:
    """Run a command that serves, wait until it is ready, and end it."""
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    with process.stderr as words, ThreadPoolExecutor(1) as reader:
        try:
            said = next((line for line in words if line.startswith("ready ")), None)
            assert said, f"the engine ended with {process.wait()}"
            reader.submit(words.read)  # a process that nobody reads stands still when its pipe is full
            yield Engine(said.split()[1], process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def eventually(holds: Callable[[], bool], within_s: float = 10) -> bool:
    """Whether it comes to hold before the deadline."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
