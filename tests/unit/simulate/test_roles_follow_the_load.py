"""Replicas that change their roles with the load, and those whose roles are fixed, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import Outcome
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.policies import load
from millrace.simulate import jobs_of, servers, simulate

SLO = Slo(ttft_s=1.0, tpot_s=0.05)
KIND = "a100-80g llama-3-8b"
PROMPTS, ANSWERS, SHIFT_S = 200, 800, 26.0


def shifting() -> Iterator[TraceRecord]:
    """Long prompts with short answers, then short prompts with long answers."""
    for n in range(PROMPTS):
        yield TraceRecord(id=f"p{n}", t_s=0.12 * n, input_tokens=4000, output_tokens=20)
    for n in range(ANSWERS):
        yield TraceRecord(id=f"a{n}", t_s=SHIFT_S + 0.03 * n, input_tokens=200, output_tokens=400)


def played(fleet: str, **settings: bool) -> tuple[float, list[Outcome]]:
    """Return the goodput, and what came of each request."""
    inner = ",".join(f"{name}={value}" for name, value in settings.items())
    found = simulate(
        jobs_of(shifting(), "llama-3-8b", SLO),
        servers(parse_fleet(fleet)),
        Controller(load("routing", f"xllm_slo_aware({inner})"), load("queueing", "fcfs")),
        load("batching", "split_fuse"),
        slo=SLO,
    )
    return found.measured.goodput_rps, found.outcomes


def test_roles_follow_a_load_that_shifts_from_prompts_to_answers() -> None:
    goodput_rps, outcomes = played(f"4x {KIND}")
    reading = [one for one in outcomes if one.scheduled_s < SHIFT_S]
    writing = [one for one in outcomes if one.scheduled_s >= SHIFT_S]
    assert len({one.replica for one in reading}) < len({one.replica for one in writing})
    assert {one.prefilled_on for one in reading} - {one.prefilled_on for one in writing[-100:]}
    for prefilling in (1, 2, 3):
        fixed = f"{prefilling}x {KIND} role=prefill + {4 - prefilling}x {KIND} role=decode"
        assert goodput_rps > 2 * played(fixed)[0]


def test_as_written_one_replica_decodes_for_good() -> None:
    goodput_rps, outcomes = played(f"4x {KIND}", as_written=True)
    assert {one.replica for one in outcomes} == {"r0"}
    assert "r0" not in {one.prefilled_on for one in outcomes}
    assert goodput_rps < 0.5 * played(f"4x {KIND}")[0]
