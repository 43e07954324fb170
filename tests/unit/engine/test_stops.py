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


def earliest(text: str, stops: list[str]) -> int:
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))


@given(pieces, stop_lists)
def test_text_ends_in_front_of_the_first_stop_however_it_is_cut(parts: list[str], stops: list[str]) -> None:
    whole = "".join(parts)
    assert shown(StopStrings(stops), parts) == whole[: earliest(whole, stops)]


@given(pieces, stop_lists)
def test_what_is_shown_is_never_taken_back(parts: list[str], stops: list[str]) -> None:
    stream, text, whole = StopStrings(stops), "", "".join(parts)
    for part in parts:
        text += stream.push(part)
        assert whole[: earliest(whole, stops)].startswith(text)
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
