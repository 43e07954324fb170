"""Puts an engine together from a checkpoint: weights, executor, replica, and what serving needs."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import torch

from millrace.core.batch import BatchingPolicy
from millrace.core.replica import Limits
from millrace.engine.chat import load_chat_template
from millrace.engine.config import ModelConfig
from millrace.engine.defaults import end_tokens, read_defaults
from millrace.engine.executor import TorchExecutor
from millrace.engine.model import Model
from millrace.engine.prompts import Prompts
from millrace.engine.service import Service
from millrace.engine.settings import EngineSettings
from millrace.engine.tokenizer import TextTokenizer
from millrace.engine.weights import load_model
from millrace.replica.replica import Replica


@dataclass(frozen=True, slots=True)
class Engine:
    """A replica, the executor that computes its steps, and the service around them."""

    replica: Replica
    executor: TorchExecutor
    service: Service


def load_engine(settings: EngineSettings, batching: BatchingPolicy) -> Engine:
    """Load the checkpoint. ValueError names the file and the key that this engine cannot follow."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    context = settings.limits.context_tokens
    model = load_model(settings.model, dtype=_dtype(settings), device=settings.device, context_tokens=context)
    limits = _limits(settings.limits, model)
    executor = TorchExecutor(model, kv_blocks=limits.kv_blocks, block_tokens=limits.block_tokens)
    return Engine(Replica(limits, batching), executor, _service(settings, limits, model.config))


def _dtype(settings: EngineSettings) -> torch.dtype:
    if settings.dtype == "auto":
        return torch.float32 if settings.device == "cpu" else torch.bfloat16
    dtype = getattr(torch, settings.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _limits(asked: Limits, model: Model) -> Limits:
    """The limits asked for, within the positions that the model knows."""
    longest = min(asked.context_tokens, model.config.max_position_embeddings)
    return msgspec.structs.replace(asked, context_tokens=longest)


def _service(settings: EngineSettings, limits: Limits, config: ModelConfig) -> Service:
    tokenizer = TextTokenizer.load(settings.model)
    defaults = read_defaults(settings.model)
    return Service(
        names=settings.names,
        prompts=Prompts(tokenizer, load_chat_template(settings.model), config.vocab_size),
        tokenizer=tokenizer,
        sampling=defaults.sampling,
        end_tokens=end_tokens(defaults, config),
        vocab=config.vocab_size,
        limits=limits,
    )
