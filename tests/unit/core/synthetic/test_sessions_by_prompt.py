"""Conversations found by what their prompts begin with."""

from __future__ import annotations

from statistics import median

from millrace.core.synthetic import find_sessions
from millrace.core.trace import TraceRecord
from millrace.data import open_trace


def asked(name: str, t_s: float, *blocks: int, answer: int = 3, **fields: object) -> TraceRecord:
    """A prompt of these blocks of ten tokens and a little more."""
    return TraceRecord(
        id=name,
        t_s=t_s,
        input_tokens=10 * len(blocks) + 2,
        output_tokens=answer,
        blocks=blocks,
        block_tokens=10,
        **fields,  # type: ignore[arg-type]
    )


def places(*records: TraceRecord) -> dict[str, tuple[str | None, int | None, str | None]]:
    return {record.id: (record.session, record.turn, record.parent) for record in find_sessions(records)}


def test_a_turn_begins_with_the_one_before() -> None:
    found = places(asked("c", 9.0, 1, 2, 3, 4), asked("a", 0.0, 1), asked("b", 5.0, 1, 2), asked("z", 1.0, 8))
    assert found == {
        "a": ("a", 0, None),
        "z": (None, None, None),
        "b": ("a", 1, "a"),
        "c": ("a", 2, "b"),
    }


def test_an_answer_asked_for_again_follows_the_turn_before_and_so_does_another_question() -> None:
    found = places(
        asked("a", 0.0, 1), asked("b", 1.0, 1, 2), asked("again", 2.0, 1, 2), asked("other", 3.0, 1, 7)
    )
    assert [found[name][2] for name in ("b", "again", "other")] == ["a", "a", "a"]


def test_whose_answer_does_not_fit_into_the_prompt_is_not_followed() -> None:
    assert places(asked("a", 0.0, 1, answer=30), asked("b", 1.0, 1, 2))["b"] == (None, None, None)


def test_what_many_conversations_begin_with_is_no_turn_of_them() -> None:
    found = places(asked("hello", 0.0, 1), *(asked(f"q{n}", 1.0 + n, 1, 10 + n) for n in range(5)))
    assert set(found.values()) == {(None, None, None)}


def test_requests_that_name_their_session_or_failed_or_say_nothing_of_their_prompt_stay_as_they_are() -> None:
    records = [
        asked("a", 0.0, 1, session="mine"),
        asked("b", 1.0, 1, 2),
        asked("lost", 2.0, 5, failed=True),
        asked("c", 3.0, 5, 6),
        asked("d", 4.0),
        asked("e", 5.0, 5, 6, 7, parent="c"),
    ]
    assert list(find_sessions(records)) == records


def test_of_mooncakes_requests_as_many_follow_another_as_the_page_of_traces_says() -> None:
    found = list(find_sessions(open_trace("mooncake_conversation")))
    known = {record.id: record for record in found}
    following = [(known[record.parent], record) for record in found if record.parent]
    assert (len(found), len(following)) == (12_031, 3_645)
    assert median(record.t_s - before.t_s for before, record in following) > 120
    for before, record in following:
        assert before.t_s <= record.t_s
        assert before.session == record.session
        assert record.blocks[: len(before.blocks)] == before.blocks
