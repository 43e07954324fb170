"""One request of a recorded workload, whatever file it came from; the error of a row that cannot be read."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from millrace.core.request import Slo

Count = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(ge=1)]
NO_SLO = Slo()


class TraceRecord(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One request: when it came, how long prompt and answer were, and what else the source knew.

    Unknown is None. `t_s` counts from the start of the trace. `blocks` are chained ids of the prompt's full
    leading blocks of `block_tokens` tokens each: two records share their first k blocks exactly when their
    first k ids are equal. `tail_block` is the id that Mooncake gives the last, partial block as well, which
    no cache can share. `turn` counts from 0 within a `session`, `parent` is the id of the turn before.
    `kind` is the source's word for the sort of request, `elapsed_s` how long the answer took there.
    A `failed` request got no answer. `lexical` are the numbers of `core.lexical`, if they were kept.
    """

    id: str
    t_s: float
    input_tokens: Count
    output_tokens: Count
    session: str | None = None
    turn: Count | None = None
    parent: str | None = None
    model: str | None = None
    tenant: str | None = None
    priority: int = 0
    max_tokens: Count | None = None
    block_tokens: Size = 16
    blocks: tuple[int, ...] = ()
    tail_block: int | None = None
    slo: Slo = NO_SLO
    adapter: str | None = None
    images: Count = 0
    kind: str | None = None
    elapsed_s: float | None = None
    failed: bool = False
    lexical: tuple[int, ...] = ()


class TraceError(ValueError):
    """A row that cannot be read: `line` counts from 1, `field` is the column at fault, `fix` what to do."""

    def __init__(self, line: int, field: str, problem: str, fix: str) -> None:
        super().__init__(f"line {line}, {field}: {problem}; {fix}")
        self.line = line
        self.field = field
        self.problem = problem
        self.fix = fix
