"""A batch's number says whether it is due, known already, too late for others, or of another life."""

from __future__ import annotations

from millrace.gateway.kv_events.numbering import Numbering


def _heard(numbering: Numbering, *numbers: int) -> list[str]:
    places: list[str] = []
    for number in numbers:
        places.append(numbering.place(number))
        if number >= numbering.due:
            numbering.took(number)
    return places


def test_batches_in_order_are_due() -> None:
    assert _heard(Numbering(), 0, 1, 2) == ["next"] * 3


def test_who_comes_late_misses_the_beginning() -> None:
    assert _heard(Numbering(), 7, 8) == ["gap", "next"]


def test_what_is_missing_is_noticed() -> None:
    assert _heard(Numbering(), 0, 2, 3) == ["next", "gap", "next"]


def test_what_was_replayed_comes_once_more_and_is_no_news() -> None:
    numbering = Numbering()
    assert _heard(numbering, 0) == ["next"]
    for number in range(1, 5):
        numbering.took(number)
    assert _heard(numbering, 3, 4, 5) == ["known", "known", "next"]


def test_a_publisher_that_counts_backwards_began_anew() -> None:
    numbering = Numbering()
    assert _heard(numbering, 0, 1, 2) == ["next"] * 3
    assert numbering.place(0) == "restart"
    numbering.restart()
    numbering.took(0)
    assert _heard(numbering, 1, 1) == ["next", "restart"]
