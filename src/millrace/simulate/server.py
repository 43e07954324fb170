"""A simulated engine: the replica kernel that serves, around steps that are only priced."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

from millrace.core.batch import BatchingPolicy
from millrace.core.cost import ENDLESS, StepShape, line_of
from millrace.core.replica import Limits, Report
from millrace.replica.adapters import AdapterBatch
from millrace.replica.executor import Run, Step, StepResult
from millrace.replica.progress import Progress
from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence
from millrace.simulate.engine import ServerSpec
from millrace.simulate.gaps import Gaps, Timing
from millrace.simulate.job import Job


class Server:
    """Runs jobs in runs of like steps, on one replica.

    A run of m steps whose prices rise evenly, from `first` by `gain` each, takes
    m * first + gain * m * (m - 1) / 2: it is jumped over at once, and cut at the end of a step when
    something comes from outside, or where the price bends. It has at most `longest` steps, or one more that
    closes it. With `leaping` off
    every run is a single step that is planned and booked as an engine does, one sequence after the other; the
    outcome is the same.
    """

    def __init__(
        self, spec: ServerSpec, batching: BatchingPolicy, *, leaping: bool = True, longest: int = ENDLESS
    ) -> None:
        self.id = spec.id
        self.spec = spec.spec
        self.cold_start_s = spec.cold_start_s
        self.cost = spec.cost
        self.limits = spec.spec.limits or Limits()
        self.ahead = spec.ahead
        self.kv_bytes_per_token = spec.kv_bytes_per_token
        self._load_s = self.spec.adapter_load_s or 0.0
        self._delays = self._load_s > 0
        self._loading_s = 0.0
        self.fresh: Callable[[], Replica] = partial(
            Replica, self.limits, batching, lengths=getattr(spec.cost, "needs_lengths", False)
        )
        self.replica = self.fresh()
        self.leaping = leaping
        self.longest = longest if leaping else 1
        self.end_s = 0.0
        self._line = line_of(spec.cost)
        self.gaps: Gaps | None = None
        self._unseen: list[Sequence] = []
        self._run: Run | Step | None = None
        self._start_s = self._first_s = self._gain_s = 0.0
        self._count = 1
        self._alike_until_s = 0.0  # if another step closes the run

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None

    @property
    def closing(self) -> Run | None:
        """The step that closes the run, if there is one."""
        return self._run.closing if self._alike_until_s and isinstance(self._run, Run) else None

    @property
    def tokens(self) -> int:
        """Tokens that each step of the run computes; 0 if none is under way."""
        return self._run.shape.tokens if self._run else 0

    @property
    def load(self) -> tuple[int, int]:
        """Sequences that wait, and that run."""
        batch = self.replica.batch
        waiting = len(batch.queue) + len(self._unseen)
        if batch.importing:
            waiting += len(batch.imports.expected) + len(batch.imports.landed)
        return waiting, len(batch.running)

    def add(self, job: Job, *, prompt_only: bool = False) -> None:
        """Queue a job. Raises ValueError for one that can never fit.

        Of its `prompt_only` the KV cache is computed, which then stays until the job is aborted.
        """
        blocks = job.engine_blocks(self.limits.block_tokens) if self.limits.prefix_caching else []
        sequence = Sequence(
            job.request.id, job.prompt_tokens, 1 if prompt_only else job.output_tokens, blocks
        )
        sequence.adapter, sequence.keeps = job.request.adapter, prompt_only
        sequence.priority = job.request.priority
        if self.ahead and self.busy:
            self.replica.vet(sequence)
            self._unseen.append(sequence)
        else:
            self.replica.add(sequence)

    def expect(self, job: Job, cached_tokens: int) -> None:
        """Let a job wait for blocks, into which the KV cache of its prompt will come. Raises like `add`."""
        blocks = job.engine_blocks(self.limits.block_tokens) if self.limits.prefix_caching else []
        sequence = Sequence(job.request.id, job.prompt_tokens, job.output_tokens, blocks, cached_tokens)
        sequence.adapter, sequence.priority = job.request.adapter, job.request.priority
        self.replica.expect(sequence)

    def granted(self) -> list[tuple[str, int]]:
        """Return the expected jobs that got their blocks since the last time, and the tokens to come."""
        return [(sequence.id, tokens) for sequence, tokens in self.replica.reserved()]

    def land(self, request_id: str) -> None:
        """Note that the KV cache of an expected job is here."""
        self.replica.land(request_id)

    def abort(self, request_id: str) -> None:
        """Forget a job, if it is still here."""
        if self.gaps and (sequence := self.replica.batch.known.get(request_id)):
            self.gaps.lose(sequence, busy=self.busy)
        if not self.replica.abort(request_id):
            self._unseen = [sequence for sequence in self._unseen if sequence.id != request_id]

    def drop(self, now_s: float) -> dict[str, int]:
        """Lose everything at once, the run under way and the KV cache too.

        Return the ids of all jobs, with the tokens that each has of its answer.
        """
        if self.gaps:
            self._count_until(now_s, self.gaps)
        if isinstance(self._run, Run) and (steps := self._steps_at(now_s) - 1):
            self.replica.finish(self._run, steps)
        known = self.replica.batch.known.values()
        lost = {sequence.id: 0 if sequence.keeps else sequence.generated for sequence in known}
        lost |= {sequence.id: 0 for sequence in self._unseen}
        self._unseen, self._run = [], None
        self.replica = self.fresh()
        return lost

    def start(self, now_s: float, slowdown: float = 1.0) -> bool:
        """Begin the next run, which will end at `end_s`; False if there is nothing to do."""
        replica = self.replica
        run = replica.begin() if self.leaping else replica.plan()
        if self.gaps and replica.batch.displaced:
            self.gaps.preempted(replica.batch.displaced)
        longest = self.longest
        if self._unseen:
            self._let_in()
            if run is None:
                run = replica.begin() if self.leaping else replica.plan()
            else:
                longest = 1  # who has come is there for the next one
        self._run = run
        if run is None:
            return False
        loading_s = self._loading_s = self._loads_s() if self._delays else 0.0
        count, closing = 1, None
        if longest > 1 and not loading_s:
            assert isinstance(run, Run), "only leaps are so long"
            count = replica.lasting(run)
            if closing := run.closing:
                count = run.alike
        self._start_s, self._alike_until_s = now_s, 0.0
        if count > 1:
            first_s, gain_s, straight = self._line(run.shape)
            if count > straight or count > longest:
                count = min(straight, longest)
                closing = None
            self._first_s = first_s = slowdown * first_s
            self._gain_s = gain_s = slowdown * gain_s
            # Spelled out here and in `cut` and `_steps_by`: every run comes by, and a call would be felt.
            self.end_s = now_s + (count * first_s + gain_s * (count * (count - 1) * 0.5))
        else:
            self._first_s = first_s = slowdown * (self.cost.step_s(run.shape) + loading_s)
            self.end_s = now_s + first_s
        self._count = count
        if closing:
            self._alike_until_s = self.end_s
            self.end_s += slowdown * self.cost.step_s(closing.shape)
        return True

    def cut(self, now_s: float) -> bool:
        """Let the run end with the step that is under way now; False if it would have anyway."""
        closes = self._alike_until_s > 0.0
        if closes and not self._leave_open(now_s):
            return False
        count = self._steps_by(now_s - self._start_s)
        if count >= self._count:
            return closes
        self._count = count
        self.end_s = self._start_s + (count * self._first_s + self._gain_s * (count * (count - 1) * 0.5))
        return True

    def make_way(self, now_s: float) -> bool:
        """Let the run end when who has just been added may get its turn; False if it would have anyway.

        An eager policy has nothing for it as long as a prompt fills the steps, or there is no seat or block.
        """
        run = self._run
        if isinstance(run, Run) and self.replica.eager and not self.ahead:
            if run.prefills:
                return self._alike_until_s > 0.0 and self._leave_open(now_s)
            if self.replica.batch.crowded:
                return False
        return self.cut(now_s)

    def finish(self) -> Progress:
        """End the run under way; completed jobs are forgotten."""
        closing = self.closing if self._alike_until_s else None
        run, self._run = self._run, None
        assert run is not None, "no run is under way"
        gaps = self.gaps
        if isinstance(run, Run):
            if gaps:
                gaps.ended(closing or run, self.replica.batch, self._timing(), self.end_s)
            return self.replica.finish(run, self._count + 1 if closing else self._count)
        progress = self.replica.commit(run, StepResult(self.end_s - self._start_s))
        if gaps:
            gaps.each(progress.emitted, self.end_s)
        return progress

    def report(self, now_s: float) -> Report:
        """Return what the engine's `/metrics` would say now."""
        waiting, running = self.load
        free_tokens = self.replica.kv_free_tokens
        if isinstance(self._run, Run) and (count := self._steps_at(now_s)) > 1:
            free_tokens -= self.replica.taken_tokens(self._run, count)
        return Report(
            now_s=now_s,
            running=running,
            waiting=waiting,
            kv_free_tokens=free_tokens,
            adapters=self._adapters(),
        )

    def under_way(self) -> tuple[StepShape, int, float]:
        """Return the first step of the run under way, how many like it there are, and the seconds of all."""
        assert self._run is not None
        return self._run.shape, self._count, self.end_s - self._start_s - self._loading_s

    def _count_until(self, now_s: float, gaps: Gaps) -> None:
        """Count the gaps of the run under way as far as it has come."""
        run = self._run
        if isinstance(run, Run) and (steps := self._steps_at(now_s) - 1):
            when = Timing(self._start_s, self._first_s, self._gain_s, steps)
            gaps.cut_off(run, self.replica.batch, when)
        gaps.forget()

    def _timing(self) -> Timing:
        alike_until_s = self._alike_until_s
        closing_s = self.end_s - alike_until_s if alike_until_s else 0.0
        # A rank's only step lasts until the slowest one's.
        first_s = self._first_s if self._count > 1 else (alike_until_s or self.end_s) - self._start_s
        return Timing(self._start_s, first_s, self._gain_s, self._count, closing_s)

    def _loads_s(self) -> float:
        """Seconds that the step just planned waits for adapters."""
        batch = self.replica.batch
        return self._load_s * batch.take_loads() if isinstance(batch, AdapterBatch) else 0.0

    def _adapters(self) -> tuple[str, ...] | None:
        batch = self.replica.batch
        return tuple(batch.resident) if isinstance(batch, AdapterBatch) else None

    def _let_in(self) -> None:
        """Show the replica those who arrived during the last step."""
        newcomers, self._unseen = self._unseen, []
        for sequence in newcomers:
            self.replica.add(sequence)

    def _leave_open(self, now_s: float) -> bool:
        """Take from the run the step that closes it; False if that is already under way."""
        if now_s > self._alike_until_s:
            return False
        self.end_s, self._alike_until_s = self._alike_until_s, 0.0
        return True

    def _steps_at(self, now_s: float) -> int:
        """The number of the step under way."""
        if 0.0 < self._alike_until_s < now_s:
            return self._count + 1
        return self._steps_by(now_s - self._start_s)

    def _steps_by(self, elapsed_s: float) -> int:
        """The number of the first step that ends at or after `elapsed_s`: a quadratic, then corrected."""
        first_s, gain_s = self._first_s, self._gain_s
        if self._count == 1 or elapsed_s <= first_s:
            return 1
        linear = first_s - gain_s * 0.5
        root = sqrt(linear * linear + 2 * gain_s * elapsed_s)
        count = int(2 * elapsed_s / (linear + root)) or 1
        while count > 1 and (count - 1) * first_s + gain_s * ((count - 1) * (count - 2) * 0.5) >= elapsed_s:
            count -= 1
        while count * first_s + gain_s * (count * (count - 1) * 0.5) < elapsed_s and count < self._count:
            count += 1
        return count
