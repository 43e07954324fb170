"""The engine's heart: plans a step, lets the executor run it, and hands what came of it to who waits."""

from __future__ import annotations

import asyncio
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from millrace.engine.answer import Answer, Part
from millrace.engine.between import Between
from millrace.engine.errors import ApiError, broken, failed, overloaded, stopping
from millrace.engine.executor import TorchExecutor
from millrace.engine.generation import Generation
from millrace.engine.guests import Guests
from millrace.engine.kv_events import Teller
from millrace.engine.metrics import Metrics
from millrace.engine.step_log import StepObserver
from millrace.replica.executor import Step, StepResult
from millrace.replica.progress import Stepped
from millrace.replica.replica import Replica

# After so many steps in a row that failed, what fails is the engine and not what it was asked.
MOST_FAILURES = 10


def _nobody_listens(generations: Iterable[Generation]) -> None:
    """What happens to the prefix cache is nobody's affair."""


@dataclass(slots=True)
class _Active:
    generation: Generation
    answer: Answer
    index: int
    arrived_s: float
    latest_s: float
    begun: bool = False


class EngineLoop:
    """Runs one replica for all requests of a process, all but the executor's work on the event loop."""

    def __init__(
        self,
        replica: Replica,
        executor: TorchExecutor,
        metrics: Metrics,
        *,
        waiting: int,
        observe: StepObserver,
        tell: Teller = _nobody_listens,
    ) -> None:
        self.replica = replica
        self.executor = executor
        self._closed: Callable[[], ApiError] | None = None
        self.draining = False
        self._metrics = metrics
        self._waiting, self._observe, self._tell = waiting, observe, tell
        self._failures = 0
        self._active: dict[str, _Active] = {}
        self._retired: list[str] = []
        self._news = asyncio.Event()
        self.between = Between(self._news.set)
        self.guests = Guests(replica, self._news.set)
        self.on_kept: Callable[[Generation], None] | None = None

    def submit(self, answer: Answer) -> None:
        """Let an answer's sequences wait for their turn. ApiError if too many wait, or if it has failed."""
        if self._closed:
            raise self._closed()
        if len(self.replica.waiting) + len(answer.generations) > self._waiting:
            raise overloaded()
        for generation in answer.generations:
            self.replica.add(generation.sequence)
        self._activate(answer)
        self._news.set()

    def welcome(self, answer: Answer, *, begun: bool) -> None:
        """Take an answer whose KV cache will come: ask for blocks next, then `land` it, or `abort`.

        `begun` is one whose client has its beginning. ApiError if too many are at work, or if it has failed.
        """
        if self._closed:
            raise self._closed()
        if len(self._active) >= self._waiting + self.replica.limits.sequences:
            raise overloaded()
        self._activate(answer, begun=begun)

    def land(self, answer: Answer) -> None:
        """Let an answer of one sequence go on, as its KV cache is here."""
        (generation,) = answer.generations
        if generation.id in self._active:
            self.replica.land(generation.id)
            self._news.set()

    def give_away(self, answer: Answer) -> None:
        """Forget an answer that goes on elsewhere; who reads it comes to its end."""
        for generation in answer.generations:
            if self._active.pop(generation.id, None):
                self.replica.abort(generation.id)
                self._retired.append(generation.id)
        answer.part_with()
        self._news.set()

    def drop_kept(self, id: str) -> None:
        """Free the KV blocks of a sequence that is complete and has kept them."""
        self.replica.abort(id)
        self._news.set()

    def has(self, answer: Answer) -> bool:
        """Whether every sequence of an answer is still at work."""
        return all(generation.id in self._active for generation in answer.generations)

    def abort(self, answer: Answer) -> None:
        """Forget what is unfinished of an answer; its slots and KV blocks are free from the next step on."""
        now = time.monotonic()
        for generation in answer.generations:
            if one := self._active.pop(generation.id, None):
                self.guests.forget(generation.id)
                self.replica.abort(generation.id)
                self._retired.append(generation.id)
                self._metrics.finished("abort", now - one.arrived_s)
        answer.close()
        self._news.set()

    @property
    def healthy(self) -> bool:
        """Whether it still takes requests."""
        return self._closed is None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or kept for another engine."""
        return not (self._active or self.replica.batch.known)

    def drain(self) -> None:
        """Take no more; what is under way goes on, here or at another engine that comes for it."""
        self._closed = self._closed or stopping
        self.draining = True

    def close(self, error: Callable[[], ApiError]) -> None:
        """End every answer with an error, and take no more."""
        self._closed = error
        for one in list(self._active.values()):
            one.answer.close(error())
            self.abort(one.answer)
        self.between.close(error())

    async def run(self) -> None:
        """Step for ever. A step that fails ends the answers it was for; a failure that lasts ends all."""
        with ThreadPoolExecutor(1, "steps") as pool:
            try:
                await self._steps(pool)
            finally:
                self.close(broken)

    async def _steps(self, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._retire()
            if self.between:
                await self.between.run(pool)
                self._retire()
            step = self.replica.plan()
            self.guests.answer()
            if step is None:
                if not self.between:
                    self._news.clear()
                    await self._news.wait()
                continue
            try:
                result = await loop.run_in_executor(pool, self.executor.run, step)
            except Exception as error:
                self._fail(step, error)
                continue
            self._failures = 0
            self._observe(step, result)
            progress = self.replica.commit(step, result)
            self._tell(one.generation for one in self._active.values())
            self._deliver(progress)

    def _fail(self, step: Step, error: Exception) -> None:
        """Give up what a failed step was for, or the engine: raise the error if it is unlikely to pass.

        A step writes only to KV blocks of its own sequences that nobody else can find yet, so the others'
        state is as it was.
        """
        self._failures += 1
        if is_fatal(error) or self._failures == MOST_FAILURES:
            raise error
        print("millrace engine: a step failed; its requests get status 500", file=sys.stderr)
        traceback.print_exception(error)
        for chunk in step.chunks:
            if one := self._active.get(chunk.sequence.id):
                one.answer.close(failed())
                self.abort(one.answer)
        self.replica.commit(step, StepResult(0.0))

    def _activate(self, answer: Answer, *, begun: bool = False) -> None:
        now = time.monotonic()
        for index, generation in enumerate(answer.generations):
            self.executor.add(generation)
            self._active[generation.id] = _Active(generation, answer, index, now, now, begun)

    def _retire(self) -> None:
        """Forget tokens only between steps: the executor may be reading them."""
        for retired in self._retired:
            self.executor.remove(retired)
        self._retired.clear()

    def _deliver(self, progress: Stepped) -> None:
        now = time.monotonic()
        ended: dict[str, str] = {end.sequence.id: end.why for end in progress.ended}
        for sequence in progress.emitted:
            one, finish = self._active[sequence.id], ended.get(sequence.id)
            self._measure(one, now)
            one.answer.push(Part(one.index, one.generation.take(final=finish is not None), finish))
        for done, why in ended.items():
            one = self._active.pop(done)
            self._metrics.finished(why, now - one.arrived_s)
            self._retired.append(done)
            if one.generation.sequence.keeps and self.on_kept is not None:
                self.on_kept(one.generation)

    def _measure(self, one: _Active, now: float) -> None:
        if not one.begun:
            self._metrics.first_token(one.generation.sequence, now - one.arrived_s)
        else:
            self._metrics.next_token(now - one.latest_s)
        one.begun, one.latest_s = True, now


def is_fatal(error: Exception) -> bool:
    """Whether this process can compute nothing more: it has no memory, or its device context is lost."""
    return isinstance(error, MemoryError) or re.search("CUDA (driver )?error", str(error)) is not None
