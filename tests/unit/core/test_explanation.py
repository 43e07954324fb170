"""What was weighed is told in the order in which it would win."""

from __future__ import annotations

from math import inf

from millrace.core.explanation import explanation, reasons
from millrace.core.weighed import Explanation, Weighed
from millrace.policies import load
from millrace.testing import fakes
from tests.unit.control.scripted import Insists

A, B, C = (fakes.replica(name) for name in "abc")


def test_equal_ranks_share_a_place_and_the_best_is_first() -> None:
    told = explanation("s", [C, A, B], [1.0, 2.0, 1.0], totals=[1.0, 2.0, 1.0], terms={"x": [3.0, 4.0, 5.0]})
    assert [(one.replica, one.place, one.terms["x"]) for one in told.weighed] == [
        ("b", 1, 5.0),
        ("c", 1, 3.0),
        ("a", 2, 4.0),
    ]


def test_who_is_out_of_the_question_has_no_total() -> None:
    told = explanation("s", [A, B], [inf, 1.0], totals=[inf, 1.0], terms={}, ttft_s=[9.0, 1.0])
    assert [one.total for one in told.weighed] == [1.0, None]
    assert (told.ttft_s("a"), told.ttft_s("b"), told.ttft_s("c")) == (9.0, 1.0, None)


def test_a_policy_that_cannot_tell_has_words_only() -> None:
    assert reasons(Insists("a"), fakes.request(), fakes.fleet(A), "because") == Explanation(why="because")


def test_a_policy_that_can_tell_has_words_too() -> None:
    told = reasons(load("routing", "least_request"), fakes.request(), fakes.fleet(A), "because")
    assert (told.why, told.by) == ("because", "requests in flight, the fewest win")
    assert told.weighed == (Weighed("a", 1, 0, {"waiting": 0, "running": 0}),)


def test_temperature_makes_the_cheapest_only_the_likeliest() -> None:
    warm, cold = (load("routing", f"dynamo_cost(temperature={t})") for t in (0.5, 0.0))
    by = [policy.explain(fakes.request(), fakes.fleet(A)).by for policy in (warm, cold)]
    assert by == ["blocks, the fewer the likelier", "blocks, the fewest win"]


def test_our_policy_tells_which_rule_was_at_hand() -> None:
    fleet = fakes.fleet(*(fakes.replica(n, prefill_tokens_per_s=100.0, queued_tokens=900) for n in "ab"))

    def rule(**settings: float) -> str:
        text = ", ".join(f"{name}={value}" for name, value in settings.items())
        policy = load("routing", f"millrace({text})")
        told: Explanation = policy.explain(fakes.request(), fleet)
        return told.by

    assert rule() == "seconds to a first token, the least wins"
    assert rule(slo_ttft_s=1000.0) == "seconds of work, for others too, and of waiting, the least wins"
    assert rule(slo_ttft_s=1.0) == "seconds of waiting, the most wins"


def test_dualmap_tells_whether_the_cache_or_the_time_decided() -> None:
    policy, request = load("routing", "dualmap"), fakes.request(blocks=(1, 2, 3))
    plain = [fakes.replica(name, prefill_tokens_per_s=1000.0) for name in "ab"]
    [known] = [fakes.replica("a", prefill_tokens_per_s=1000.0, sent=(request,))]
    assert policy.explain(request, fakes.fleet(*plain)).by.startswith("seconds")
    assert policy.explain(request, fakes.fleet(known, plain[1])).by.startswith("tokens cached")
    assert len(policy.explain(request, fakes.fleet(A)).weighed) == 1
    assert policy.explain(fakes.request(), fakes.fleet(*plain)).by.startswith("seconds")
