"""The servers of other projects as they are started here: small, on few threads, all with the demo model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from millrace.data import demo_model
from millrace.launch.commands import Command, engine_command
from pages import ROOT
from tests.engines import announcer

HOME = ROOT / ".venv-engines"
KV_TOPIC = "kv@demo"
BLOCK_TOKENS = 32  # vLLM computes attention on processors in multiples of that


def vllm_telling(*, events: int, replay: int, blocks: int = 64, context: int = 512) -> Command:
    """vLLM's server, which publishes the events of its cache of so many blocks on these ports."""
    publishing = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{events}",  # it binds no other, but connects to them
        "replay_endpoint": f"tcp://127.0.0.1:{replay}",
        "topic": KV_TOPIC,
    }
    size = {"--num-gpu-blocks-override": str(blocks), "--max-model-len": str(context)}
    return vllm({"--kv-events-config": json.dumps(publishing), **size}, {})


def vllm_paired(*, role: Literal["kv_producer", "kv_consumer"], side: int) -> Command:
    """vLLM's server, which gives KV caches away or takes them over, and tells of them on the port `side`."""
    passing = {"kv_connector": "NixlConnector", "kv_role": role, "kv_buffer_device": "cpu"}
    channel = {"VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1", "VLLM_NIXL_SIDE_CHANNEL_PORT": str(side)}
    return vllm({"--kv-transfer-config": json.dumps(passing)}, channel | {"UCX_TLS": "tcp,self,sm"})


def vllm(more: dict[str, str], variables: dict[str, str]) -> Command:
    """vLLM's server with a cache of 64 blocks, or with `more` settings, and with more `variables`."""
    settings = {
        "--host": "127.0.0.1",
        "--port": "{port}",
        "--served-model-name": "demo",
        "--dtype": "float32",
        "--max-model-len": "512",
        "--max-num-seqs": "4",
        "--block-size": str(BLOCK_TOKENS),
        "--num-gpu-blocks-override": "64",
        **more,
    }
    switches = ("--enforce-eager", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log")
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        **variables,
    }
    words = (
        program("python"),
        *("-m", "vllm.entrypoints.openai.api_server", "--model", str(demo_model())),
        *(word for pair in settings.items() for word in pair),
    )
    return announced("/health", (*words, *switches), environment)


def llama_cpp(model: Path, *, slots: int = 4) -> Command:
    """llama.cpp's own server."""
    words = (
        program("python"),
        str(Path(__file__).with_name("serve_gguf.py")),
        str(model),
        "{port}",
        str(slots),
    )
    return announced("/health", words, {})


def our_engine() -> Command:
    """Millrace's own, in the others' precision and context."""
    return engine_command("demo", options=("--dtype", "float32", "--max-model-len", "512"))


def write_gguf(file: Path) -> Path:
    """Write the demo model as GGUF."""
    script = (program("python"), str(ROOT / "scripts" / "make_gguf.py"), str(demo_model()), str(file))
    subprocess.run(script, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True)
    return file


def announced(path: str, words: Sequence[str], environment: dict[str, str]) -> Command:
    """Make a server's command one that says `ready URL` once the path answers."""

    def command(port: int) -> Sequence[str]:
        variables = (f"{name}={value}" for name, value in environment.items())
        start = ("env", *variables, sys.executable, announcer.__file__, str(port), path)
        return (*start, *words)

    return command


def program(name: str) -> str:
    """Return where an engine's program is. Raises FileNotFoundError that says how to get it."""
    found = HOME / "bin" / name
    if not os.access(found, os.X_OK):
        raise FileNotFoundError(
            f"no {HOME.name}/bin/{name}: `make test-engines` installs the engines, then tests them"
        )
    return str(found)
