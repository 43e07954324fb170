"""Low-rank adapters on a device: so many at a time, loaded when used, the least recently used forgotten.

Source: the scheduler of vLLM, which passes over a waiting request whose adapter would be one too many
(`max_loras`) and lets those behind it go, and its least-recently-used cache of adapters on the device.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from itertools import islice

from millrace.core.replica import Limits
from millrace.core.swapping import Swapping
from millrace.replica.batch import Batch
from millrace.replica.sequence import Sequence
from millrace.replica.swapping import SwappingBatch


class AdapterBatch(Batch):
    """A batch whose running sequences may use at most so many adapters; one that nobody uses may be replaced.

    `resident` are the adapters on the device, the one used longest ago first. `loads` counts those that the
    coming step uses for the first time since they were not.
    """

    def __init__(self, limits: Limits, slots: int, *, by_priority: bool = False) -> None:
        super().__init__(limits, by_priority=by_priority)
        self.slots = slots
        self.resident: OrderedDict[str, None] = OrderedDict()
        self.loads = 0
        self._users: Counter[str] = Counter()
        self._held: dict[Sequence, str] = {}

    @property
    def waiting(self) -> list[Sequence]:
        """Who can be admitted as far as adapters go, any of them together, as many as may run.

        Whoever is passed over keeps its place, and is looked at again when somebody has left.
        """
        taken = set(self._users)
        room = self.sequences - (0 if self.by_priority else len(self.running))  # seats may be yielded
        return list(islice((one for one in super().waiting if self._joins(one, taken)), max(0, room)))

    def admit(self, sequence: Sequence) -> bool:
        """Let a waiting sequence run with its adapter, or return False for lack of room in the KV cache."""
        adapter = sequence.adapter
        if adapter is not None and not self._joins(sequence, set(self._users)):
            raise ValueError(f"batching admitted {sequence.id!r} beyond the {self.slots} adapters allowed")
        admitted = super().admit(sequence)
        if admitted and adapter is not None:
            self._use(sequence, adapter)
        return admitted

    def join(self, sequence: Sequence) -> bool:
        """Let an imported sequence run; False if there is no seat, or none for its adapter."""
        adapter = sequence.adapter
        joined = self._joins(sequence, set(self._users)) and super().join(sequence)
        if joined and adapter is not None:
            self._use(sequence, adapter)
        return joined

    def complete(self, sequence: Sequence) -> None:
        """Take out a running sequence that has all its tokens; who keeps blocks lets go of the adapter."""
        self._let_go(sequence)
        super().complete(sequence)

    def set_aside(self, sequence: Sequence) -> bool:
        """Stop a decode, which lets go of the adapter, but not of its blocks; False if it lacks one."""
        stopped = super().set_aside(sequence)
        if stopped:
            self._let_go(sequence)
        return stopped

    def release(self, sequence: Sequence) -> None:
        """Take all blocks and the adapter from a sequence."""
        self._let_go(sequence)
        super().release(sequence)

    def take_loads(self) -> int:
        """Return how many adapters have to be loaded before the step just planned."""
        loads, self.loads = self.loads, 0
        return loads

    def _joins(self, sequence: Sequence, taken: set[str]) -> bool:
        """Whether its adapter fits beside those that are taken, of which it is one from now on."""
        adapter = sequence.adapter
        if adapter is None or adapter in taken:
            return True
        fits = len(taken) < self.slots
        if fits:
            taken.add(adapter)
        return fits

    def _let_go(self, sequence: Sequence) -> None:
        if (adapter := self._held.pop(sequence, None)) is not None:
            self._users[adapter] -= 1
            if not self._users[adapter]:
                del self._users[adapter]
            self.resident.move_to_end(adapter)

    def _use(self, sequence: Sequence, adapter: str) -> None:
        self._held[sequence] = adapter
        self._users[adapter] += 1
        if adapter not in self.resident:
            if len(self.resident) >= self.slots:
                del self.resident[next(one for one in self.resident if one not in self._users)]
            self.loads += 1
        self.resident[adapter] = None
        self.resident.move_to_end(adapter)


def batch_for(limits: Limits, *, by_priority: bool = False, swapping: Swapping | None = None) -> Batch:
    """Return an empty batch within these limits. Raises ValueError for limits that nobody can keep."""
    _check(limits)
    if swapping is not None:
        if limits.adapters is not None:
            raise ValueError("adapters are not limited where sequences are swapped: leave out one of the two")
        return SwappingBatch(limits, swapping)
    if limits.adapters is None:
        return Batch(limits, by_priority=by_priority)
    return AdapterBatch(limits, limits.adapters, by_priority=by_priority)


def _check(limits: Limits) -> None:
    for name in ("step_tokens", "sequences", "kv_blocks", "block_tokens"):
        if getattr(limits, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(limits, name)}")
    if limits.adapters is not None and limits.adapters < 1:
        raise ValueError(f"adapters must be at least 1, or None for no limit, not {limits.adapters}")
