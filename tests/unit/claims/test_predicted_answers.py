"""What the receipt of predicted answers computes with, and that nobody waits beyond the bound it names."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from millrace.claims import clairvoyant
from millrace.claims.live.crowd import Answered
from millrace.core.answer_length import LengthPrediction
from millrace.core.lexical import lexical

ANSWERS = st.lists(
    st.tuples(st.integers(1, 400), st.integers(0, 40), st.integers(1, 400)), min_size=1, max_size=40
)


@settings(max_examples=25, deadline=None)
@given(answers=ANSWERS, patience_s=st.sampled_from([0.0, 5.0, 30.0]))
def test_nobody_waits_longer_than_first_come_first_served_and_patience_and_one_answer(
    answers: list[tuple[int, int, int]], patience_s: float
) -> None:
    texts = clairvoyant.logged(len(answers), seed=4)
    gaps_s = [float(gap_s) for _, gap_s, _ in answers]
    records = [
        replace(one, t_s=t_s, output_tokens=tokens)
        for one, t_s, (tokens, _, _) in zip(texts, accumulate(gaps_s), answers, strict=True)
    ]
    claimed = {
        one.lexical: LengthPrediction(said, (0,)) for one, (_, _, said) in zip(records, answers, strict=True)
    }
    plain = clairvoyant.serial(records, "fcfs", None)
    ordered = clairvoyant.serial(records, f"clairvoyant(patience_s={patience_s})", claimed.__getitem__)
    longest_s = (1 + max(tokens for tokens, _, _ in answers)) / clairvoyant.TOKENS_PER_S
    for one in records:
        before, now = plain[one.id].finished_s, ordered[one.id].finished_s
        assert before is not None
        assert now is not None
        assert now <= before + patience_s + longest_s + 1e-6


def test_a_bound_is_what_came_before_and_patience_and_the_longest() -> None:
    found = [
        Answered(tokens=1, latency_s=0.0, waited_s=0.0, served_s=served_s) for served_s in (1.0, 5.0, 2.0)
    ]
    assert clairvoyant.bounds_s(found, 10.0) == [15.0, 16.0, 21.0]


def test_shuffling_and_turning_keep_the_answers_and_the_wording() -> None:
    records = clairvoyant.logged(50, seed=1)
    for changed in (clairvoyant.shuffle(records), clairvoyant.turned(records)):
        assert sorted(one.output_tokens for one in changed) == sorted(one.output_tokens for one in records)
        assert [one.lexical for one in changed] == [one.lexical for one in records]
        assert changed != records
    longest = max(records, key=lambda one: (one.output_tokens, one.id))
    turned = {one.id: one.output_tokens for one in clairvoyant.turned(records)}
    assert turned[longest.id] == min(turned.values())


def test_a_prediction_takes_time_that_can_be_measured() -> None:
    assert (
        0 < clairvoyant.prediction_s(lambda numbers: LengthPrediction(sum(lexical("a")), (0,)), texts=5) < 1
    )
