"""An open-loop load generator: every request leaves at its scheduled moment, whatever became of the others.

Latency counts from the schedule, so a slow fleet cannot slow its own measurement down ("coordinated
omission", G. Tene); how late the client itself was is measured and reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import aiohttp
from msgspec import Struct

from millrace.bench.answer import Answer
from millrace.bench.prompts import PATH, Planned
from millrace.bench.sse import SseParser
from millrace.core.outcome import Outcome
from millrace.core.stats import Summary, summary

REPLICA_HEADER = "x-millrace-replica"
_IDLE_CONNECTION_S = 2.0  # shorter than any server's own, so that none closes under a new request


class Sent(Struct, frozen=True, kw_only=True):
    """What came of a load: one outcome per planned request, in the order of the plan.

    `client_lag_s` is how long after its schedule each request left, `token_gap_s` the time between
    consecutive tokens as they reached the client; None where nothing was measured.
    """

    outcomes: list[Outcome]
    client_lag_s: Summary | None
    token_gap_s: Summary | None


class Load:
    """Sends a plan to an OpenAI-shaped endpoint. `result` can be asked for at any time, even after a stop.

    `url` is the endpoint's root, with or without `/v1`. Raises ValueError if two requests have the same id.
    """

    def __init__(
        self,
        url: str,
        planned: Iterable[Planned],
        *,
        timeout_s: float = 120.0,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> None:
        self.planned = sorted(planned, key=lambda one: one.scheduled_s)
        if len({one.id for one in self.planned}) < len(self.planned):
            raise ValueError("planned holds two requests of the same id; outcomes are kept by id")
        self.sent = 0
        self._url = url.rstrip("/").removesuffix("/v1") + PATH
        self._timeout_s = timeout_s
        self._on_outcome = on_outcome
        self._start_s = 0.0
        self._outcomes: dict[str, Outcome] = {}
        self._lags_s: list[float] = []
        self._gaps_s: list[float] = []

    @property
    def ended(self) -> int:
        """Requests whose outcome is known."""
        return len(self._outcomes)

    @property
    def in_flight(self) -> int:
        """Requests sent and not ended."""
        return self.sent - self.ended

    async def run(self) -> Sent:
        """Send everything and wait for the last answer; if it is cancelled, `result` still has what came."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION_S)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as session:
            self._start_s = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as requests:
                for planned in self.planned:
                    await asyncio.sleep(max(0.0, planned.scheduled_s - self._now_s()))
                    self.sent += 1
                    requests.create_task(self._send(session, planned))
        return self.result()

    def result(self) -> Sent:
        """Return what is known; a request without an end counts as cancelled."""
        return Sent(
            outcomes=[self._outcomes.get(one.id) or _stopped(one) for one in self.planned],
            client_lag_s=summary(self._lags_s) if self._lags_s else None,
            token_gap_s=summary(self._gaps_s) if self._gaps_s else None,
        )

    async def _send(self, session: aiohttp.ClientSession, planned: Planned) -> None:
        self._lags_s.append(self._now_s() - planned.scheduled_s)
        answer = Answer()
        try:
            await self._exchange(session, planned, answer)
        except TimeoutError:
            answer.fail(f"timeout: no end within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            answer.fail(f"connection: {type(error).__name__}: {error}")
        self._end(planned, answer)

    async def _exchange(self, session: aiohttp.ClientSession, planned: Planned, answer: Answer) -> None:
        headers = {"content-type": "application/json", "x-request-id": planned.id}
        async with session.post(self._url, data=planned.body, headers=headers) as response:
            answer.replica = response.headers.get(REPLICA_HEADER)
            if response.status != 200:
                answer.answer_http(response.status, await response.read())
                return
            parser = SseParser()
            async for piece in response.content.iter_any():
                now_s = self._now_s()
                for event in parser.feed(piece):
                    answer.take(event, now_s)

    def _end(self, planned: Planned, answer: Answer) -> None:
        outcome = answer.outcome(
            planned.id,
            scheduled_s=planned.scheduled_s,
            now_s=self._now_s(),
            prompt_tokens=len(planned.prompt),
        )
        self._outcomes[planned.id] = outcome
        self._gaps_s.extend(answer.gaps_s)
        if self._on_outcome:
            self._on_outcome(outcome)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time() - self._start_s


def _stopped(planned: Planned) -> Outcome:
    return Outcome(
        id=planned.id,
        scheduled_s=planned.scheduled_s,
        status="cancelled",
        prompt_tokens=len(planned.prompt),
        error="stopped: the run ended before the answer did",
    )
