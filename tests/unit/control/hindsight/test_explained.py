"""Why a request of a log went where it did, and where another would have gone."""

from __future__ import annotations

import pytest

from millrace.control.hindsight import Question, explain_asked, explain_logged
from millrace.control.log import LogError
from millrace.core.event import Event, Failed, Finished, Reported, Started
from millrace.core.fleet import Hold, Route
from millrace.core.replica import ReplicaSpec
from millrace.policies import load
from tests.unit.control.hindsight.logs import Contrary, arrived, joined, log_of

BLOCKS = (1, 2, 3, 4, 5, 6)
HISTORY: list[Event] = [
    *joined("a", "b"),
    arrived(1.0, "first", blocks=BLOCKS, prompt_tokens=200),
    arrived(2.0, "second", session="s"),
    Started(2.5, "first"),
    arrived(3.0, "third", session="s"),
    Started(3.5, "second"),
    Finished(4.0, "first"),
]


def test_a_decision_is_explained_with_what_was_known_and_weighed_then() -> None:
    answer = explain_logged(log_of(HISTORY), "second")
    assert isinstance(answer.decision, Route)
    assert (answer.now_s, answer.policy.policy) == (2.0, "least_work")
    best, other = answer.candidates
    assert (best.replica, best.place, best.waiting) == (answer.decision.replica, 1, 0)
    assert (other.place, other.waiting, other.queued_tokens) == (2, 1, 200)
    assert best.ttft_s == best.foreseen_s == 1.0
    assert (answer.sent_to, answer.ttft_s) == (best.replica, 1.5)


def test_another_policy_can_be_asked_what_it_would_have_done_and_has_learned_by_then() -> None:
    log = log_of(HISTORY)
    assert explain_logged(log, "second", policy=Contrary()).decision == Route("b")
    third = explain_logged(log, "third", policy=Contrary())
    assert third.decision == Hold("seen before")
    assert third.sent_to in ("a", "b")
    assert (third.by, third.ttft_s) == ("", None)
    assert all(one.place is None and not one.terms for one in third.candidates)


def test_each_attempt_is_a_decision_of_its_own() -> None:
    events = [*joined("a", "b"), arrived(1.0, "q"), Failed(2.0, "q", "reset"), Started(3.0, "q")]
    log = log_of(events)
    first, second = (explain_logged(log, "q", attempt=n) for n in (1, 2))
    assert {first.sent_to, second.sent_to} == {"a", "b"}
    assert (first.ttft_s, second.ttft_s) == (None, 1.0)
    with pytest.raises(ValueError, match="'q' was sent 2 times; attempt is 3"):
        explain_logged(log, "q", attempt=3)


def test_an_attempt_that_failed_for_good_has_no_first_token() -> None:
    events = [*joined("a"), arrived(1.0, "q"), Failed(2.0, "q", "reset", retryable=False)]
    assert explain_logged(log_of(events), "q").ttft_s is None


def test_a_request_that_was_only_held_is_explained_as_that() -> None:
    events = [Reported(0.0, "a", "starting", ReplicaSpec(models=("m",))), arrived(1.0, "q")]
    answer = explain_logged(log_of(events), "q")
    assert (answer.decision, answer.candidates, answer.sent_to) == (Hold("no ready replica"), (), None)


def test_a_request_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no decision about a request 'nobody'"):
        explain_logged(log_of(HISTORY), "nobody")


def test_a_log_that_would_not_be_written_again_is_told_with_its_line() -> None:
    log = log_of(HISTORY)
    log[3] = log[3].replace(b'"replica":"a"', b'"replica":"x"').replace(b'"replica":"b"', b'"replica":"x"')
    assert explain_logged(log, "second").first_difference == 4


def test_a_request_that_nobody_sent_goes_where_its_prefix_is() -> None:
    log = log_of(HISTORY, "millrace")
    home = explain_logged(log, "first").sent_to
    like = Question(prefix_of="first", slo_ttft_s=100.0)
    answer = explain_asked(log, like, 3.9)
    assert isinstance(answer.decision, Route)
    assert (answer.decision.replica, answer.prompt_tokens, answer.request_id) == (home, 200, "asked")
    assert answer.candidates[0].cached_tokens == 96
    some = explain_asked(log, Question(prefix_of="first", prefix_tokens=40, prompt_tokens=64), 3.9)
    assert max(one.cached_tokens for one in some.candidates) == 32


def test_the_moment_counts_and_what_came_later_is_only_read() -> None:
    answer = explain_asked(log_of(HISTORY), Question(prefix_of="third", model="m"), 0.5)
    assert [(one.waiting, one.running) for one in answer.candidates] == [(0, 0), (0, 0)]
    late = explain_asked(log_of(HISTORY), Question(prompt_tokens=10), 99.0)
    assert sum(one.running for one in late.candidates) == 1


def test_the_log_s_policy_or_another_one_is_asked() -> None:
    question = Question(prompt_tokens=10, session="s", adapter="poet")
    assert explain_asked(log_of(HISTORY), question, 1.5).by
    assert explain_asked(log_of(HISTORY), question, 1.5, policy=load("routing", "random")).by == ""
    assert explain_asked(log_of(HISTORY), question, 1.5, policy=Contrary()).decision == Route("b")
    assert explain_asked(log_of(HISTORY), question, 2.0, policy=Contrary()).decision == Hold("seen before")


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (Question(prefix_of="nobody"), "no request 'nobody' to begin like"),
        (Question(), "prompt_tokens is missing"),
    ],
)
def test_a_question_that_leaves_things_open_is_refused(question: Question, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        explain_asked(log_of(HISTORY), question, 2.0)


def test_of_several_models_one_must_be_said() -> None:
    both = ReplicaSpec(models=("m", "n"))
    log = log_of([*joined("a", spec=both)])
    with pytest.raises(ValueError, match="model is missing; there are: m, n"):
        explain_asked(log, Question(prompt_tokens=9), 2.0)
    with pytest.raises(ValueError, match="model is missing; there are: none yet"):
        explain_asked(log_of([]), Question(prompt_tokens=9), 2.0)
    assert explain_asked(log, Question(prompt_tokens=9, model="n"), 2.0).decision == Route("a")


def test_a_line_that_makes_no_sense_is_numbered() -> None:
    with pytest.raises(LogError, match="line 6"):
        explain_asked([*log_of(HISTORY)[:5], b"{}\n"], Question(prefix_of="nobody"), 0.0)
