"""Homes of prompts: two of them, found by how a prompt begins, and by longer beginnings where it is hot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.event import Arrived, Reported, Ticked
from millrace.core.fleet import ReplicaView
from millrace.core.homes import Homes
from millrace.core.replica import Phase, ReplicaSpec, Role
from millrace.core.request import Request
from millrace.testing import fakes

IDS = tuple(f"r{n}" for n in range(8))


def homes(*, key_blocks: int = 2, block_tokens: int = 512, window: int = 40, seed: int = 0) -> Homes:
    return Homes(
        key_blocks=key_blocks, block_tokens=block_tokens, window=window, virtual_nodes=150, seed=seed
    )


def prompt(*blocks: int, id: str = "q", block_tokens: int = 512, adapter: str | None = None) -> Request:
    tokens = block_tokens * len(blocks) + 10
    return fakes.request(id, prompt_tokens=tokens, blocks=blocks, block_tokens=block_tokens, adapter=adapter)


def join(made: Homes, *ids: str, phase: Phase = "ready", role: Role = "both", model: str = "m") -> None:
    for one in ids:
        made.note(Reported(0.0, one, phase, ReplicaSpec(models=(model,), role=role)))


def come(made: Homes, requests: Iterable[Request]) -> None:
    for request in requests:
        made.note(Arrived(0.0, request))


def pair(
    made: Homes, request: Request, able: Sequence[str] = IDS, ids: tuple[str, ...] = IDS
) -> tuple[str, ...]:
    views: dict[str, ReplicaView] = {one: fakes.replica(one) for one in able}
    return tuple(home.id for home in made.pair(request, ids, views))


def test_a_key_is_the_second_block_or_all_there_is_or_the_request_itself() -> None:
    made = homes()
    assert made.key(prompt(1, 2, 3)) == 2
    assert made.key(prompt(1)) == 1
    assert made.key(prompt(id="alone")) == "alone"
    assert made.key(prompt(1, 2, 3, adapter="a")) == "2/a"


def test_blocks_of_a_key_are_made_of_whole_blocks_of_the_request() -> None:
    fine = tuple(range(200))
    assert homes().key(prompt(*fine, block_tokens=16)) == 63
    assert homes().key(prompt(*fine[:40], block_tokens=16)) == 31
    assert homes().key(prompt(*fine[:20], block_tokens=16)) == 19
    assert homes(block_tokens=16).key(prompt(5, 6, 7, block_tokens=512)) == 6


def test_a_hot_prefix_gets_longer_keys_until_it_is_cold() -> None:
    made = homes(window=40)
    join(made, *IDS)
    hot = [prompt(1, 2, 3, 4 + n, id=f"h{n}") for n in range(11)]
    come(made, hot[:10])
    assert made.key(hot[0]) == 2  # 10 of 40 are no more than 2/8
    come(made, hot[10:])
    assert [made.key(one) for one in hot[:3]] == [4, 5, 6]
    come(made, (prompt(100 + n, 200 + n, id=f"c{n}") for n in range(35)))
    assert made.key(hot[0]) == 4  # 5 of the last 40 are still no less than 1/8
    come(made, [prompt(1000, 2000, id="c")])
    assert made.key(hot[0]) == 2
    come(made, (prompt(100 + n, 200 + n, id=f"d{n}") for n in range(39)))
    assert made.key(hot[0]) == 2


def test_what_is_hot_depends_on_how_many_answer_for_the_model() -> None:
    hot = [prompt(1, 2, 3 + n, id=f"h{n}") for n in range(21)]
    for gone, key in ((0, 3), (5, 2)):
        made = homes(window=40)
        join(made, *IDS)
        join(made, *IDS[:gone], phase="gone")
        join(made, "p", role="prefill")
        join(made, "n", model="n")
        made.note(Ticked(0.0))
        made.note(Reported(1.0, IDS[-1], "draining"))
        come(made, hot)
        assert made.key(hot[0]) == key


def test_requests_for_models_that_nobody_answers_for_are_not_remembered() -> None:
    made = homes()
    come(made, [prompt(1, 2), prompt(id="alone")])
    join(made, "r0")
    come(made, [prompt(id="alone")])
    assert not made._heat


def test_two_homes_differ_and_do_not_depend_on_who_else_is_asked() -> None:
    made = homes()
    for n in range(50):
        first, second = pair(made, prompt(n, 100 + n))
        assert first != second
        assert pair(made, prompt(n, 100 + n), able=IDS[::-1]) == (first, second)
    assert pair(made, prompt(1, 2), able=["r3"]) == ("r3",)


GOLDEN = [("r1", "r7"), ("r2", "r3"), ("r0", "r5"), ("r0", "r6"), ("r4", "r3"), ("r4", "r0")]


def test_golden_homes() -> None:
    made = homes()
    assert [pair(made, prompt(n, 100 + n)) for n in range(6)] == GOLDEN


@given(n=st.integers(0, 10**9), away=st.sampled_from(IDS))
def test_a_home_that_is_not_able_is_passed_over_and_the_other_one_stays(n: int, away: str) -> None:
    made = homes()
    before, left = pair(made, prompt(n, n + 1)), [one for one in IDS if one != away]
    after = pair(made, prompt(n, n + 1), able=left)
    assert away not in after
    assert after == pair(made, prompt(n, n + 1), able=left, ids=tuple(left))
    if away not in before:
        assert after == before
    elif away == before[1]:
        assert after[0] == before[0]


@pytest.mark.parametrize("count", [4, 8, 16])
def test_another_replica_takes_about_its_share_of_homes_and_no_others_move(count: int) -> None:
    made, ids = homes(), tuple(f"r{n}" for n in range(count + 1))
    prompts = [prompt(n, n + 1) for n in range(3000)]
    moved = 0
    for one in prompts:
        before, after = pair(made, one, able=ids[:-1], ids=ids[:-1]), pair(made, one, able=ids, ids=ids)
        assert set(after) <= {*before, ids[-1]}
        moved += after != before
    assert moved / len(prompts) < 1.5 * 2 / (count + 1)


@pytest.mark.parametrize("name", ["key_blocks", "block_tokens", "window"])
def test_settings_must_be_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        homes(**{name: 0})
