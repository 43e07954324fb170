"""Classes of answers by their length."""

from __future__ import annotations

from millrace.core.answer_length import LengthPrediction, class_of


def test_classes_begin_at_their_bounds() -> None:
    assert [class_of(tokens) for tokens in (0, 199, 200, 799, 800, 9999)] == [0, 0, 1, 1, 2, 2]
    assert [class_of(tokens, (1, 2)) for tokens in (0, 1, 2)] == [0, 1, 2]


def test_a_prediction_rules_out_what_is_not_in_its_set() -> None:
    assert [LengthPrediction(5, classes).rules_out for classes in ((0,), (0, 1), (0, 1, 2))] == [2, 1, 0]
