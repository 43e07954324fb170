"""One request of a workload: what the gateway sees of it, and what only the engine will find out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from millrace.core.draw import draw
from millrace.core.request import Request, Slo
from millrace.core.trace import TraceRecord


class Job(Struct, frozen=True, kw_only=True):
    """A request due at `t_s`, with the lengths and prompt blocks that its engine will see.

    `blocks` are chained hashes of the prompt's full blocks of `block_tokens` tokens; they may be finer
    or truer than what the gateway knows (`request.blocks`).
    """

    t_s: float
    request: Request
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: int = 16

    def engine_blocks(self, block_tokens: int) -> list[int]:
        """Return the chained hashes of the prompt's full blocks at the engine's block size.

        Raises ValueError if neither block size is a multiple of the other.
        """
        if not self.blocks:
            return []
        if self.block_tokens % block_tokens == 0:
            parts = self.block_tokens // block_tokens
            if parts == 1:
                return list(self.blocks[: self.prompt_tokens // block_tokens])
            fine = [block * parts + part for block in self.blocks for part in range(parts)]
            return fine[: self.prompt_tokens // block_tokens]
        if block_tokens % self.block_tokens == 0:
            parts = block_tokens // self.block_tokens
            return list(self.blocks[parts - 1 :: parts])[: self.prompt_tokens // block_tokens]
        raise ValueError(
            f"the trace's blocks of {self.block_tokens} tokens and the engine's of {block_tokens} do not "
            "divide each other: set the engine's block_size to a divisor of the trace's"
        )


def jobs_of(
    records: Iterable[TraceRecord], model: str, slo: Slo, *, models: Mapping[str, str] | None = None
) -> Iterator[Job]:
    """Turn trace records into jobs; failed ones are left out.

    Records that name no model ask for `model`, those that name one for it, or for what `models` says
    instead; the fleet refuses what it does not serve. Those with objectives of their own keep them. A record
    of no prompt or no answer tokens counts as one of each, which is the least an engine can do.
    """
    renamed = models or {}
    for record in records:
        if not record.failed:
            asked = renamed.get(record.model, record.model) if record.model else model
            yield job_of(record, asked, slo)


def job_of(record: TraceRecord, model: str, slo: Slo) -> Job:
    """Turn one trace record into a job for this model."""
    prompt_tokens, output_tokens = max(1, record.input_tokens), max(1, record.output_tokens)
    blocks = record.blocks if record.adapter is None else _of_adapter(record.blocks, record.adapter)
    request = Request(
        id=record.id,
        model=model,
        prompt_tokens=prompt_tokens,
        max_tokens=record.max_tokens or output_tokens,
        tenant=record.tenant or "default",
        session=record.session,
        blocks=blocks,
        block_tokens=record.block_tokens,
        priority=record.priority,
        slo=slo if record.slo == Slo() else record.slo,
        adapter=record.adapter,
        lexical=record.lexical,
    )
    return Job(
        t_s=record.t_s,
        request=request,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        blocks=blocks,
        block_tokens=record.block_tokens,
    )


def _of_adapter(blocks: tuple[int, ...], adapter: str) -> tuple[int, ...]:
    """Name blocks apart from those of other adapters: the same tokens have another KV cache there."""
    mark = draw("adapter", adapter)
    return tuple(block ^ mark for block in blocks)
