"""The load generator against real sockets: nothing is lost, nothing is sent late, nothing is made up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from millrace.bench.load import Load, Sent
from millrace.bench.prompts import Planned, Shape, shape
from millrace.core.outcome import Outcome
from millrace.core.trace import TraceRecord
from tests.integration.bench.endpoint import Answering, Exchange, endpoint

TOKEN = b'{"choices": [{"text": "x"}]}'
DONE = b"[DONE]"


def plan(count: int = 4, every_s: float = 0.0) -> list[Planned]:
    records = [
        TraceRecord(id=f"r{i}", t_s=i * every_s, input_tokens=100, output_tokens=16) for i in range(count)
    ]
    return shape(records, Shape(model="demo", vocab_tokens=4096))


def usage(prompt: int, output: int, cached: int) -> bytes:
    details = {"cached_tokens": cached}
    counts = {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": details}
    return json.dumps({"choices": [], "usage": counts}).encode()


def sent(answering: Answering, planned: list[Planned], **options: Any) -> Sent:
    async def run() -> Sent:
        async with endpoint(answering) as url:
            return await Load(url, planned, **options).run()

    return asyncio.run(run())


async def answer_well(exchange: Exchange) -> None:
    await exchange.stream(TOKEN, TOKEN, usage(25, 2, 16), DONE, replica="engine-7", end=True)


def test_answers_become_outcomes_with_the_endpoints_counts() -> None:
    result = sent(answer_well, plan())
    for outcome, planned in zip(result.outcomes, plan(), strict=True):
        assert (outcome.id, outcome.status, outcome.replica) == (planned.id, "completed", "engine-7")
        assert (outcome.prompt_tokens, outcome.output_tokens, outcome.cached_tokens) == (25, 2, 16)
        assert outcome.first_token_s is not None
        assert outcome.finished_s is not None
        assert 0 < outcome.first_token_s <= outcome.finished_s
    assert result.client_lag_s is not None
    assert result.client_lag_s.count == 4
    assert result.token_gap_s is not None
    assert result.token_gap_s.count == 4


def test_the_endpoint_sees_the_planned_bytes_and_the_records_id() -> None:
    seen: dict[str, bytes] = {}

    async def remember(exchange: Exchange) -> None:
        assert exchange.head.startswith("post /v1/completions ")
        seen[exchange.head.partition("x-request-id: ")[2].split()[0]] = exchange.body
        await answer_well(exchange)

    planned = plan()
    sent(remember, planned)
    assert seen == {one.id: one.body for one in planned}


def test_a_slow_endpoint_does_not_slow_the_schedule_down() -> None:
    """Ten requests due within 50 ms are all there before the first is answered."""
    arrived = 0
    everyone = asyncio.Event()

    async def answer_when_all_are_here(exchange: Exchange) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 10:
            everyone.set()
        await everyone.wait()
        await answer_well(exchange)

    planned = plan(10, every_s=0.005)
    result = sent(answer_when_all_are_here, planned, timeout_s=30)
    assert all(o.status == "completed" for o in result.outcomes)
    first = result.outcomes[0]
    assert first.ttft_s is not None
    assert first.ttft_s > planned[-1].scheduled_s - planned[0].scheduled_s


async def refuse(exchange: Exchange) -> None:
    await exchange.refuse(503, b'{"error": {"message": "the queue is full"}}')


async def reset_mid_stream(exchange: Exchange) -> None:
    await exchange.stream(TOKEN)
    exchange.reset()


async def reset_at_once(exchange: Exchange) -> None:
    exchange.reset()


async def fail_in_band(exchange: Exchange) -> None:
    await exchange.stream(TOKEN, b'{"error": {"message": "engine-3 died"}}')


async def stop_short(exchange: Exchange) -> None:
    await exchange.stream(TOKEN, end=True)


async def never_end(exchange: Exchange) -> None:
    await exchange.stream(TOKEN)
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("answering", "status", "error", "tokens"),
    [
        (refuse, "refused", "http 503: the queue is full", 0),
        (reset_at_once, "failed", "connection: ", 0),
        (reset_mid_stream, "failed", "connection: ", 1),
        (fail_in_band, "failed", "in-band: engine-3 died", 1),
        (stop_short, "failed", "cut: the stream ended without [DONE]", 1),
    ],
)
def test_every_fault_becomes_an_outcome(answering: Answering, status: str, error: str, tokens: int) -> None:
    for outcome in sent(answering, plan()).outcomes:
        assert (outcome.status, outcome.output_tokens) == (status, tokens)
        assert outcome.error is not None
        assert outcome.error.startswith(error)
        assert (outcome.first_token_s is not None) == (tokens > 0)


def test_an_answer_that_never_ends_is_given_up() -> None:
    for outcome in sent(never_end, plan(), timeout_s=0.5).outcomes:
        assert (outcome.status, outcome.error) == ("failed", "timeout: no end within 0.5 s")
        assert outcome.first_token_s is not None


def test_an_endpoint_that_is_not_there_fails_every_request() -> None:
    async def run() -> Sent:
        async with endpoint(answer_well) as url:
            pass
        return await Load(url, plan()).run()

    errors = [outcome.error or "" for outcome in asyncio.run(run()).outcomes]
    assert len(errors) == 4
    assert all(error.startswith("connection: ClientConnectorError") for error in errors)


def test_a_stopped_run_still_accounts_for_every_request() -> None:
    answered: list[Outcome] = []

    async def answer_the_first(exchange: Exchange) -> None:
        if "x-request-id: r0\r" in exchange.head:
            await answer_well(exchange)
        else:
            await asyncio.Event().wait()

    async def run() -> Sent:
        async with endpoint(answer_the_first) as url:
            load = Load(url, plan(3, every_s=0.01), on_outcome=answered.append)
            task = asyncio.create_task(load.run())
            while load.ended < 1 or load.sent < 3:
                await asyncio.sleep(0.005)
            assert load.in_flight == 2
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return load.result()

    result = asyncio.run(run())
    assert [o.status for o in result.outcomes] == ["completed", "cancelled", "cancelled"]
    assert [o.id for o in answered] == ["r0"]


def test_an_empty_plan_ends_at_once() -> None:
    result = sent(answer_well, [])
    assert (result.outcomes, result.client_lag_s, result.token_gap_s) == ([], None, None)


def test_two_requests_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        Load("http://127.0.0.1:1/v1", plan(1) * 2)
