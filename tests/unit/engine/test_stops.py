"""A stop string ends the text wherever tokens cut it, and no part of it is ever shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millrace.engine.stops import StopStrings

pieces = st.lists(st.text(alphabet="abc", max_size=4), max_size=12)
stop_lists = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3)


def shown(stops: StopStrings, parts: list[str]) -> str:
    text = ""
    for part in parts:
        text += stops.push(part)
        if stops.hit:
            return text
    return text + stops.flush()


def expected(parts: list[str], stops: list[str]) -> str:
    """The text up to the first stop in it, as soon as there is one: nothing is generated after that."""
    text = ""
    for part in parts:
        text += part
        if found := [at for stop in stops if (at := text.find(stop)) >= 0]:
            return text[: min(found)]
    return text


@given(pieces, stop_lists)
def test_text_ends_in_front_of_the_first_stop(parts: list[str], stops: list[str]) -> None:
    assert shown(StopStrings(stops), parts) == expected(parts, stops)


@given(st.text(alphabet="abc", max_size=20), st.text(alphabet="abc", min_size=1, max_size=4), st.data())
def test_where_text_is_cut_into_tokens_makes_no_difference_to_a_stop(
    text: str, stop: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    assert shown(StopStrings([stop]), [text[:cut], text[cut:]]) == text.split(stop)[0]


@given(pieces, stop_lists)
def test_what_is_shown_is_never_taken_back(parts: list[str], stops: list[str]) -> None:
    stream, text = StopStrings(stops), ""
    for part in parts:
        text += stream.push(part)
        assert expected(parts, stops).startswith(text)
        if stream.hit:
            break


def test_text_that_cannot_begin_a_stop_is_shown_at_once() -> None:
    stops = StopStrings(["\n\n", "STOP"])
    assert [stops.push(part) for part in ("one", "\n", "two", " ST", "ART")] == [
        "one",
        "",
        "\ntwo",
        " ",
        "START",
    ]


def test_the_stop_string_is_shown_when_asked_for() -> None:
    assert shown(StopStrings(["ab"], include=True), ["xa", "bc"]) == "xab"


def test_without_stops_everything_is_shown_at_once() -> None:
    assert StopStrings([]).push("text") == "text"
