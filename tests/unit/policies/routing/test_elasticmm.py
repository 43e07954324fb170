"""ElasticMM: groups by modality that borrow, and encoders that nobody waits for."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.core.event import Arrived, Ticked
from millrace.core.fleet import Decision, Hold, ReplicaView, Route
from millrace.core.request import Media, Request
from millrace.policies.routing.elasticmm import Policy
from millrace.testing import fakes

IMAGE = Media("image", 5, 64)
BLOCKS = tuple(range(6))


def replica(id: str, **fields: Any) -> ReplicaView:
    return fakes.replica(id, **{"prefill_tokens_per_s": 1000.0, **fields})


def encoder(id: str, **fields: Any) -> ReplicaView:
    return replica(id, role="encode", **fields)


def seeing(id: str = "q", **fields: Any) -> Request:
    return fakes.request(id, media=(IMAGE,), blocks=BLOCKS, **fields)


def asked(
    request: Request, *replicas: ReplicaView, text: int = 0, media: int = 0, **settings: Any
) -> Decision:
    policy = Policy(**settings)
    policy.note(Ticked(0.0))
    for n in range(text):
        policy.note(Arrived(0.0, fakes.request(f"t{n}")))
    for n in range(media):
        policy.note(Arrived(0.0, seeing(f"m{n}")))
    return policy.route(request, fakes.fleet(*replicas))


def test_each_kind_has_as_many_replicas_as_its_work_takes() -> None:
    four = [replica(name) for name in "abcd"]
    even = {"text": 10, "media": 10}
    images = {asked(seeing(f"q{n}"), *four, **even) for n in range(40)}
    texts = {asked(fakes.request(f"q{n}"), *four, **even) for n in range(40)}
    assert images == {Route("a"), Route("b")}
    assert texts == {Route("c"), Route("d")}


def test_a_kind_that_comes_has_at_least_one_and_one_that_does_not_has_none() -> None:
    two = replica("a"), replica("b")
    assert asked(seeing(), *two, text=50, media=1) == Route("a")
    assert asked(fakes.request(), *two, text=1, media=50) == Route("b")
    assert {asked(fakes.request(f"q{n}"), *two, text=9) for n in range(9)} == {Route("a"), Route("b")}
    assert {asked(seeing(f"q{n}"), *two, media=9) for n in range(9)} == {Route("a"), Route("b")}
    assert asked(seeing(), replica("a"), text=5, media=5) == Route("a")


def test_a_group_borrows_where_it_is_served_so_much_sooner() -> None:
    busy = replica("a", queued_tokens=150)
    assert asked(seeing(), busy, replica("b"), text=5, media=5) == Route("b")
    assert asked(seeing(), busy, replica("b"), text=5, media=5, borrow_from=3.0) == Route("a")


def test_media_go_to_an_encoder_first_unless_they_are_cached() -> None:
    assert asked(seeing(), replica("a"), encoder("e")) == Route("a", prefill_on="e")
    assert asked(fakes.request(), replica("a"), encoder("e")) == Route("a")
    assert asked(seeing(), replica("a", sent=(seeing("before"),)), encoder("e")) == Route("a")
    assert asked(seeing(), replica("a")) == Route("a")


def test_the_same_media_go_to_the_same_encoder_until_its_queue_is_too_long() -> None:
    names = ("e", "f", "g")
    (home,) = {asked(seeing(f"q{n}"), replica("a"), *map(encoder, names)) for n in range(20)}
    assert isinstance(home, Route)
    for queued, stays in ((64, True), (65, False)):
        encoders = [encoder(name, queued_tokens=queued if name == home.prefill_on else 0) for name in names]
        assert (asked(seeing(), replica("a"), *encoders) == home) is stays


def test_encoders_that_are_late_are_done_without() -> None:
    late = encoder("e", queued_tokens=1001)
    assert asked(seeing(), replica("a"), late) == Route("a")
    assert asked(seeing(), replica("a"), late, overflow_s=1.1) == Route("a", prefill_on="e")
    unknown = encoder("e", queued_tokens=90, prefill_tokens_per_s=None)
    assert asked(seeing(), replica("a"), unknown, assumed_tokens_per_s=50.0) == Route("a")


def test_nobody_to_answer_is_reason_to_wait() -> None:
    assert asked(seeing(), encoder("e")) == Hold("no ready replica")


def test_settings_out_of_range_are_refused() -> None:
    wrong: dict[str, Any] = {"borrow_from": 0.5, "overflow_s": -1, "fading": 1, "assumed_tokens_per_s": 0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} is"):
            Policy(**{name: value})
