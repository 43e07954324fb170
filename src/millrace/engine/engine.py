"""Puts an engine together from a checkpoint: weights, executor, replica, and what serving needs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import torch

from millrace.core.batch import BatchingPolicy, informed
from millrace.core.cost.learned import Learned
from millrace.core.replica import Limits
from millrace.engine.chat import load_chat_template
from millrace.engine.config import ModelConfig, read_config
from millrace.engine.defaults import end_tokens, read_defaults
from millrace.engine.device import checked_device
from millrace.engine.executor import TorchExecutor
from millrace.engine.fingerprint import fingerprint
from millrace.engine.prompts import Prompts
from millrace.engine.service import Service, context_tokens
from millrace.engine.settings import EngineSettings
from millrace.engine.tokenizer import TextTokenizer
from millrace.engine.weights import load_model
from millrace.replica.replica import Replica


@dataclass(frozen=True, slots=True)
class Engine:
    """A replica, the executor that computes its steps, and the service around them, for some weights.

    What `times` is told of steps, the batching policy goes by.
    """

    replica: Replica
    executor: TorchExecutor
    service: Service
    fingerprint: str
    times: Learned


def load_engine(settings: EngineSettings, batching: BatchingPolicy) -> Engine:
    """Load the checkpoint. ValueError names the file and the key, or the option, that cannot be followed."""
    device = checked_device(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    config = read_config(settings.model)
    limits = _limits(settings, config)
    model = load_model(
        settings.model, dtype=_dtype(settings), device=device, context_tokens=limits.context_tokens
    )
    executor = TorchExecutor(model, kv_blocks=limits.kv_blocks, block_tokens=limits.block_tokens)
    times = Learned()
    replica, service = Replica(limits, informed(batching, times)), _service(settings, limits, config)
    return Engine(replica, executor, service, fingerprint(settings.model), times)


def _dtype(settings: EngineSettings) -> torch.dtype:
    if settings.dtype == "auto":
        return torch.float32 if settings.device == "cpu" else torch.bfloat16
    dtype = getattr(torch, settings.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _limits(settings: EngineSettings, config: ModelConfig) -> Limits:
    """The limits asked for, within the positions that the model knows."""
    asked, known = settings.context_tokens, config.max_position_embeddings
    if asked is not None and asked > known:
        raise ValueError(f"--max-model-len {asked}: this model knows {known} positions; give at most {known}")
    longest = min(asked or settings.limits.context_tokens, known)
    limits = msgspec.structs.replace(settings.limits, context_tokens=longest)
    if asked is not None and asked > (held := context_tokens(limits)):
        blocks = -(-(asked - 1) // limits.block_tokens)
        raise ValueError(
            f"--max-model-len {asked}: the KV cache holds {held} tokens; give --kv-blocks {blocks}"
        )
    return limits


def _service(settings: EngineSettings, limits: Limits, config: ModelConfig) -> Service:
    tokenizer = TextTokenizer.load(settings.model)
    defaults = read_defaults(settings.model)
    return Service(
        names=settings.names,
        prompts=Prompts(
            tokenizer,
            load_chat_template(settings.model),
            vocab=config.vocab_size,
            context_tokens=context_tokens(limits),
        ),
        tokenizer=tokenizer,
        sampling=defaults.sampling,
        end_tokens=end_tokens(defaults, config),
        vocab=config.vocab_size,
        limits=limits,
        waiting=settings.waiting,
    )
