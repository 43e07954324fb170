"""The demo's plans: what is calibrated on has nothing to do with what is played."""

from __future__ import annotations

import pytest

from millrace.bench.demo.settings import DemoSettings
from millrace.bench.demo.workload import jobs, plan, rehearsal
from millrace.bench.prompts import Planned

SETTINGS = DemoSettings(requests=12)


def _blocks(planned: list[Planned]) -> set[int]:
    return {block for one in planned for block in one.blocks}


def test_policies_play_the_same_slice_with_prompts_that_no_cache_holds_from_another() -> None:
    first, second = plan(SETTINGS), plan(SETTINGS, 1)
    assert plan(SETTINGS) == first
    for a, b in zip(first, second, strict=True):
        assert (a.id, a.scheduled_s, a.group, a.max_tokens) == (b.id, b.scheduled_s, b.group, b.max_tokens)
        assert len(a.prompt) == len(b.prompt)
    assert _blocks(first)
    assert not _blocks(first) & _blocks(second)


def test_a_rehearsal_shares_no_request_and_no_prefix_with_the_slice_or_another_rehearsal() -> None:
    plans = [plan(SETTINGS), rehearsal(SETTINGS), rehearsal(SETTINGS, 1)]
    for i, one in enumerate(plans):
        for other in plans[:i]:
            assert not _blocks(one) & _blocks(other)
            assert not {p.id for p in one} & {p.id for p in other}
    assert len(plans[1]) % SETTINGS.engines == 0


def test_a_job_fills_as_many_blocks_as_its_prompt_and_answer() -> None:
    planned = plan(SETTINGS)
    for one, job in zip(planned, jobs(planned), strict=True):
        blocks = job.engine_blocks(16)
        assert tuple(blocks[: len(one.blocks)]) == one.blocks
        assert len(blocks) == (len(one.prompt) + one.max_tokens) // 16
        assert len(set(blocks)) == len(blocks)


def test_settings_that_leave_nothing_to_do_are_refused() -> None:
    with pytest.raises(ValueError, match="engines is 0; it must be above 0"):
        DemoSettings(engines=0)
    with pytest.raises(ValueError, match="repeats is 0"):
        DemoSettings(repeats=0)


def test_a_demo_of_no_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="routing is empty"):
        DemoSettings(routing=())
