"""Wherever a stream breaks, and however often, what the client gets is what it would have got."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from millrace.gateway.resuming import Dialect
from tests.integration.gateway.replayer import PROMPT, TEXT, TOKENS, Replayer, read, spoken
from tests.integration.gateway.world import Answer, ask, gateway_for, post, run

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class Plan(Struct, frozen=True):
    """How one stream is asked for, and where it breaks: after so many bytes of each engine's answer."""

    path: str
    told: bool
    usage: bool
    dialects: tuple[Dialect, ...]
    cuts: tuple[int, ...]

    @property
    def body(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"prompt": "p"} if self.path == COMPLETIONS else {"messages": []}
        body = asked | {"model": "m", "stream": True, "max_tokens": len(TOKENS)}
        body |= {"return_token_ids": True} if self.told else {}
        return body | ({"stream_options": {"include_usage": True}} if self.usage else {})


plans = st.builds(
    Plan,
    path=st.sampled_from((CHAT, COMPLETIONS)),
    told=st.booleans(),
    usage=st.booleans(),
    dialects=st.tuples(*[st.sampled_from(("millrace", "vllm"))] * 3),
    cuts=st.lists(st.integers(0, 4200), max_size=2).map(tuple),
)


async def answered(plan: Plan) -> Answer:
    """Ask a gateway in front of three engines, of which as many break as there are cuts."""
    cuts, (first, second, third) = list(plan.cuts), plan.dialects
    async with (
        Replayer("a", first, cuts=cuts) as a,
        Replayer("b", second, cuts=cuts) as b,
        Replayer("c", third, cuts=cuts) as c,
        gateway_for(a, b, c) as gateway,
    ):
        return await ask(gateway, post(json.dumps(plan.body).encode(), path=plan.path))


def check(plan: Plan, answer: Answer) -> None:
    assert answer.whole
    *events, done = answer.events
    assert done == "[DONE]"
    choices = [event["choices"][0] for event in events if event["choices"]]
    told = [choice.get("delta", choice) for choice in choices]
    assert "".join(one.get("text", "") + one.get("content", "") for one in told) == TEXT
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"]
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in events}) == 1
    assert sum("role" in one for one in told) == (plan.path == CHAT)
    counts = [event["usage"] for event in events if not event["choices"]]
    usage = {"prompt_tokens": len(PROMPT), "completion_tokens": len(TOKENS)}
    assert counts == ([usage | {"total_tokens": len(PROMPT) + len(TOKENS)}] if plan.usage else [])
    tokens = [token for choice in choices for token in choice.get("token_ids", ())]
    assert tokens == (TOKENS if plan.told else [])


@settings(deadline=None, max_examples=60)
@given(plans)
def test_a_stream_that_breaks_anywhere_is_whole(plan: Plan) -> None:
    async def scenario() -> None:
        check(plan, await answered(plan))

    run(scenario())


@settings(deadline=None, max_examples=40)
@given(plans)
def test_between_engines_of_ours_no_byte_of_an_event_tells(plan: Plan) -> None:
    async def scenario() -> None:
        same = Plan(plan.path, plan.told, plan.usage, ("millrace",) * 3, plan.cuts)
        answer = await answered(same)
        wish = read(plan.path, plan.body)
        assert wish is not None
        expected = [b"data: %b\n\n" % data for data in spoken(wish, answer.events[0]["id"])]
        assert answer.body == b"".join(expected)

    run(scenario())
