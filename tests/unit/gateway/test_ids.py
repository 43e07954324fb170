"""What request headers say."""

from __future__ import annotations

import pytest

from millrace.core.prompt import InvalidRequestError
from millrace.core.request import Slo
from millrace.gateway.ids import RequestIds, session_of, slo_of, text_of


def test_a_sane_id_of_the_client_is_taken() -> None:
    assert RequestIds().choose({b"x-request-id": b"abc-1"}, ()) == "abc-1"


@pytest.mark.parametrize("wanted", [b"", b"a b", b"x" * 129, b"\xff", b"a\tb"])
def test_no_id_or_an_insane_one_is_replaced_by_a_new_one_each_time(wanted: bytes) -> None:
    ids = RequestIds()
    first, second = (ids.choose({b"x-request-id": wanted}, ()) for _ in range(2))
    assert first.startswith("req_")
    assert first < second


def test_an_id_in_use_gets_a_suffix() -> None:
    ids, taken = RequestIds(), {"a"}
    for _ in range(3):
        chosen = ids.choose({b"x-request-id": b"a"}, taken)
        assert chosen.startswith("a-")
        assert chosen not in taken
        taken.add(chosen)


def test_a_header_is_text_or_nothing() -> None:
    assert text_of({b"x-session-id": b"s\xe9"}, b"x-session-id") == "sé"
    assert text_of({b"x-session-id": b""}, b"x-session-id") is None
    assert text_of({}, b"x-session-id") is None
    assert text_of({b"a": b"x" * 500}, b"a") == "x" * 128


def test_a_session_is_known_by_several_names_and_the_first_counts() -> None:
    for field in (b"x-session-id", b"x-session-token", b"x-session-affinity", b"x-claude-code-session-id"):
        assert session_of({field: b"s"}) == "s"
    assert session_of({b"x-session-token": b"t", b"x-session-id": b"s"}) == "s"
    assert session_of({b"x-session-token": b"t", b"x-session-id": b""}) == "t"
    assert session_of({}) is None


def test_promises_are_read_under_both_names() -> None:
    assert slo_of({}) == Slo()
    assert slo_of({b"x-slo-ttft-ms": b"500"}) == Slo(ttft_s=0.5)
    assert slo_of({b"x-llm-d-slo-tpot-ms": b"20", b"x-slo-tpot-ms": b"9"}) == Slo(tpot_s=0.02)


@pytest.mark.parametrize("value", [b"", b"fast", b"0", b"-1", b"nan", b"inf"])
def test_a_promise_that_is_no_time_is_refused_by_its_name(value: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="x-slo-ttft-ms: expected milliseconds") as caught:
        slo_of({b"x-slo-ttft-ms": value})
    assert caught.value.param == "x-slo-ttft-ms"
