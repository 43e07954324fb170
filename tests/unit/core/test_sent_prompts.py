"""What events mean for policies that remember who was sent what."""

from __future__ import annotations

import pytest

from millrace.core.event import Arrived, Cancelled, Event, Failed, Finished, Moved, Reported, Started, Ticked
from millrace.core.fleet import Sent
from millrace.core.prefix_tree import PrefixTree
from millrace.core.replica import Phase
from millrace.core.sent_prompts import SentPrompts, learn
from millrace.testing import fakes

REQUEST = fakes.request("q", blocks=(1, 2))
ENDS: tuple[Event, ...] = (Finished(1.0, "q"), Cancelled(1.0, "q"), Failed(1.0, "q", "broken"))


def _told_of_one() -> SentPrompts:
    made = SentPrompts()
    made.news(Sent(0.0, REQUEST, "a"))
    return made


def test_what_was_sent_is_news() -> None:
    sent = Sent(0.0, REQUEST, "a")
    assert SentPrompts().news(sent) is sent


@pytest.mark.parametrize("fact", [*ENDS, Arrived(1.0, REQUEST), Started(1.0, "q"), Ticked(1.0)])
def test_most_events_are_none(fact: Event) -> None:
    assert _told_of_one().news(fact) is None


@pytest.mark.parametrize(
    ("phase", "news"), [("ready", None), ("draining", None), ("starting", "a"), ("gone", "a")]
)
def test_a_replica_whose_process_ended_holds_nothing(phase: Phase, news: str | None) -> None:
    assert SentPrompts().news(Reported(0.0, "a", phase)) == news


def test_a_replica_that_cannot_be_reached_holds_nothing() -> None:
    assert _told_of_one().news(Failed(1.0, "q", "broken", replica_down=True)) == "a"
    assert _told_of_one().news(Failed(1.0, "q", "broken", replica_down=True, replica="b")) == "b"


@pytest.mark.parametrize("end", ENDS)
def test_what_is_said_of_a_request_that_ended_is_no_news(end: Event) -> None:
    sent = _told_of_one()
    sent.news(end)
    assert sent.news(Failed(1.0, "q", "broken", replica_down=True)) is None
    assert sent.news(Moved(1.0, "q", "b")) is None


def test_a_request_that_moved_is_held_where_it_went() -> None:
    sent = _told_of_one()
    assert sent.news(Moved(1.0, "q", "b")) == Sent(1.0, REQUEST, "b", moved=True)
    assert sent.news(Moved(2.0, "q", "b")) is None  # that is where it stays
    assert sent.news(Failed(3.0, "q", "broken", replica_down=True)) == "b"


def test_a_tree_learns_what_is_held_and_what_is_lost() -> None:
    tree = PrefixTree(1 << 20)
    learn(tree, Sent(0.0, REQUEST, "a"))
    learn(tree, None)
    assert tree.tokens_of("a") == 32
    learn(tree, "a")
    assert tree.tokens_of("a") == 0
