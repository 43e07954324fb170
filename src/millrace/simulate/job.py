"""One request of a workload: what the gateway sees of it, and what only the engine will find out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

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
            fine = [block * parts + part for block in self.blocks for part in range(parts)]
            return fine[: self.prompt_tokens // block_tokens]
        if block_tokens % self.block_tokens == 0:
            parts = block_tokens // self.block_tokens
            return list(self.blocks[parts - 1 :: parts])
        raise ValueError(
            f"the trace's blocks of {self.block_tokens} tokens and the engine's of {block_tokens} do not "
            "divide each other: set the engine's block_size to a divisor of the trace's"
        )


def jobs_of(records: Iterable[TraceRecord], model: str, slo: Slo) -> Iterator[Job]:
    """Turn trace records into jobs; records that name no model ask for `model`, failed ones are left out."""
    return (_job(record, model, slo) for record in records if not record.failed)


def _job(record: TraceRecord, model: str, slo: Slo) -> Job:
    request = Request(
        id=record.id,
        model=record.model or model,
        prompt_tokens=record.input_tokens,
        max_tokens=record.max_tokens or record.output_tokens,
        tenant=record.tenant or "default",
        session=record.session,
        blocks=record.blocks,
        block_tokens=record.block_tokens,
        priority=record.priority or 0,
        slo=slo,
    )
    return Job(
        t_s=record.t_s,
        request=request,
        prompt_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        blocks=record.blocks,
        block_tokens=record.block_tokens,
    )
