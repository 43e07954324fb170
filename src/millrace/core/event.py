"""What happens to a fleet (events) and what a shell must do about it (actions): one JSON line each."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from millrace.core.replica import Phase, ReplicaSpec, Report
from millrace.core.request import Request
from millrace.core.weighed import Explanation

Reason = Literal[
    "rejected-capacity",
    "rejected-capacity-priority",
    "rejected-capacity-tenant",
    "rejected-saturated",
    "rejected-no-endpoints",
    "rejected-ttl-expired",
    "rejected-deadline",
    "rejected-late",
    "rejected-other",
]
"""Why the queue gave a request up, for programs: in llm-d's words, or finer where it has one for several."""


class Arrived(Struct, frozen=True, tag=True):
    """A request came in."""

    now_s: float
    request: Request


class Reported(Struct, frozen=True, tag=True, omit_defaults=True):
    """A replica joined, changed phase, or spoke of its load. `spec` is needed the first time only."""

    now_s: float
    replica: str
    phase: Phase
    spec: ReplicaSpec | None = None
    report: Report | None = None


class Prefilled(Struct, frozen=True, tag=True):
    """The prompt is computed where it was sent for that; its KV cache goes to the replica that answers."""

    now_s: float
    request_id: str


class Started(Struct, frozen=True, tag=True):
    """The first token (or, without streaming, the first byte) of an answer came from the engine."""

    now_s: float
    request_id: str


class Finished(Struct, frozen=True, tag=True, omit_defaults=True):
    """An answer is complete; token counts as the engine's `usage` gave them, None if it gave none."""

    now_s: float
    request_id: str
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


class Failed(Struct, frozen=True, tag=True, omit_defaults=True):
    """An attempt broke. `replica_down` says that the replica itself is unreachable, not only this request.

    `replica` says which one it was, if two of them had to do with the attempt. An answer that broke off can
    go on elsewhere after its first `resume_tokens`; None if it cannot, or has not begun.
    """

    now_s: float
    request_id: str
    why: str
    retryable: bool = True
    replica_down: bool = False
    replica: str | None = None
    resume_tokens: int | None = None


class Moved(Struct, frozen=True, tag=True):
    """A request whose KV cache was to move runs on `replica`: there now, or still where it was."""

    now_s: float
    request_id: str
    replica: str


class Cancelled(Struct, frozen=True, tag=True):
    """The client left."""

    now_s: float
    request_id: str


Medium = Literal["device", "host", "disk"]
"""Where an engine keeps a block: where it computes, in its machine's memory, or on a disk."""


class BlocksStored(Struct, frozen=True, tag=True, omit_defaults=True):
    """Blocks entered a prefix cache, each behind the one before it, and the first behind `parent`.

    `keys` are the engine's own names for them. `contents` tell what is in each by itself, as hashes
    (`blocks.contents_of`): a log shows nobody's words. Without a parent they begin prompts of what `root`
    stands for. What comes to another medium than the device may be named only, without contents.
    """

    keys: tuple[int, ...]
    contents: tuple[int, ...]
    parent: int | None = None
    root: int = 0
    medium: Medium = "device"


class BlocksRemoved(Struct, frozen=True, tag=True, omit_defaults=True):
    """Blocks left a prefix cache, or the part of it that is on this medium."""

    keys: tuple[int, ...]
    medium: Medium = "device"


class CacheCleared(Struct, frozen=True, tag=True):
    """A prefix cache is empty, or what was known of it is worth nothing any more."""


CacheChange = BlocksStored | BlocksRemoved | CacheCleared


class CacheChanged(Struct, frozen=True, tag=True):
    """An engine said what happened to its prefix cache, in order."""

    now_s: float
    replica: str
    changes: tuple[CacheChange, ...]


class Ticked(Struct, frozen=True, tag=True):
    """Time passed: deadlines and maximum waits are looked at."""

    now_s: float


Event = (
    Arrived | Reported | Prefilled | Started | Moved | Finished | Failed | Cancelled | CacheChanged | Ticked
)


class Dispatch(Struct, frozen=True, tag=True):
    """Send the request to the replica; `attempt` counts from 1, `model` is set if it is a fallback.

    If `prefill_on` is set, that replica computes the prompt first, and hands its KV cache over. If
    `resume_tokens` is, the client has so many tokens of the answer: the replica goes on after them.
    `reasons` are for whoever reads the log.
    """

    request_id: str
    replica: str
    attempt: int = 1
    model: str | UnsetType = UNSET
    prefill_on: str | UnsetType = UNSET
    resume_tokens: int | UnsetType = UNSET
    reasons: Explanation | UnsetType = UNSET


class Move(Struct, frozen=True, tag=True, omit_defaults=True):
    """Move the request from `source` to `replica`.

    Before its first token: stop working on it there, and send it here. If it is `running`: let it go on there
    until its KV cache is here, and say with a Moved where it runs then. If it is to be `replayed`: end it
    there, and say so with a Failed whose `resume_tokens` are what its client has; or, if that cannot be, with
    a Moved that it runs where it was. `reasons` are for whoever reads the log.
    """

    request_id: str
    source: str
    replica: str
    running: bool = False
    replayed: bool = False
    reasons: Explanation | UnsetType = UNSET


class Cancel(Struct, frozen=True, tag=True):
    """Stop working on the request on this replica: nobody waits for it."""

    request_id: str
    replica: str


class Refuse(Struct, frozen=True, tag=True, omit_defaults=True):
    """Answer the client with an error; by `retry_after_s` the queue should have drained, if that helps.

    `reason` is for programs; unset where the queue had no part in it, and in logs from before there was one.
    """

    request_id: str
    why: str
    status: int
    retry_after_s: float | None = None
    reason: Reason | UnsetType = UNSET


Action = Dispatch | Move | Cancel | Refuse
