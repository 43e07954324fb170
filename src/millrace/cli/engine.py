"""`millrace engine`: one embedded engine that serves a Hugging Face checkpoint over OpenAI's API."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from millrace.cli.knowing import need_zmq
from millrace.cli.output import EXIT_USAGE, CommandError
from millrace.core.replica import Limits
from millrace.policies import load

DEMO_NAME = "demo"
# Longer contexts take a KV cache to match, so they have to be asked for.
LONGEST = 2048


ModelName = Annotated[str, typer.Option(help="A checkpoint folder, or demo for the model in the box.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")]
Numbers = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Of weights and cache.")
]
ServedNames = Annotated[
    list[str] | None, typer.Option(help="A name it answers to (repeatable); else the folder's name.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Torch threads; torch chooses if left out.")]
StepLog = Annotated[Path | None, typer.Option(help="Append a JSON line for every step to this file.")]
KvEvents = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Publish KV events here, like tcp://127.0.0.1:5557.")
]
KvPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port where other engines fetch KV caches; 0 takes any free one."),
]
KvHost = Annotated[
    str | None, typer.Option(help="Address of the KV port, as others reach it; --host if left out.")
]
ForWhat = Annotated[
    Literal["both", "prefill", "decode"],
    typer.Option(
        "--role", help="What it tells a gateway to be for: prompts of other engines, answers, both."
    ),
]
KvReplay = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Tell again here what was published.")]


def run(
    *,
    model: ModelName = DEMO_NAME,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Port = 8000,
    served_model_name: ServedNames = None,
    dtype: Numbers = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Threads = None,
    batching: Annotated[str, typer.Option(help="Batching policy; see `millrace policies`.")] = "split_fuse",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Sequences in one step.")] = 64,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="Tokens in one step.")] = 512,
    max_model_len: Annotated[int | None, typer.Option(min=2, help="Tokens one sequence may have.")] = None,
    kv_blocks: Annotated[int, typer.Option(min=1, help="Blocks of KV cache.")] = 2048,
    block_size: Annotated[int, typer.Option(min=1, help="Tokens in a block.")] = 16,
    prefix_caching: Annotated[bool, typer.Option(help="Reuse the cache of equal prompt beginnings.")] = True,
    kv_port: KvPort = None,
    kv_host: KvHost = None,
    role: ForWhat = "both",
    drain: Annotated[float, typer.Option(min=0, help="Seconds that running answers get on SIGTERM.")] = 30.0,
    step_log: StepLog = None,
    kv_events: KvEvents = None,
    kv_replay: KvReplay = None,
) -> None:
    """Serve a checkpoint of the Llama, Qwen2 or Qwen3 family."""
    policy = load("batching", batching)
    _need_the_extra()
    if kv_events is not None:
        need_zmq()
    from millrace.engine.main import serve
    from millrace.engine.settings import EngineSettings

    limits = Limits(
        step_tokens=max_num_batched_tokens,
        sequences=max_num_seqs,
        kv_blocks=kv_blocks,
        block_tokens=block_size,
        context_tokens=LONGEST,
        prefix_caching=prefix_caching,
    )
    settings = EngineSettings(
        model=model_folder(model),
        host=host,
        port=port,
        served_names=tuple(served_model_name or _own_name(model)),
        dtype=dtype,
        device=device,
        threads=threads,
        limits=limits,
        context_tokens=max_model_len,
        drain_s=drain,
        step_log=step_log,
        kv_events=kv_events,
        kv_replay=kv_replay,
        kv_host=kv_host,
        kv_port=kv_port,
        role=role,
    )
    raise typer.Exit(serve(settings, policy))


def _need_the_extra() -> None:
    """Say which package is missing before anything half-starts."""
    for package in ("torch", "safetensors", "tokenizers", "jinja2", "starlette", "uvicorn"):
        if find_spec(package) is None:
            raise CommandError(f"{package} is not installed: pip install 'millrace[engine]'", EXIT_USAGE)


def model_folder(model: str) -> Path:
    """Return the folder of a checkpoint; `demo` is the one that ships with Millrace."""
    from millrace.data import demo_model

    return demo_model() if model == DEMO_NAME else Path(model)


def _own_name(model: str) -> list[str]:
    return [DEMO_NAME] if model == DEMO_NAME else []
