"""Fleets whose replicas are pipelines, or ranks that share experts: described, priced, simulated."""

from __future__ import annotations

import pytest

from millrace.control import Controller
from millrace.core.cost import Roofline
from millrace.core.cost.pipelined import Pipelined
from millrace.core.fleet_spec import parse_fleet
from millrace.core.outcome import Outcome
from millrace.core.request import Request
from millrace.core.stats import mean
from millrace.policies import load
from millrace.simulate import Job, servers, simulate

TWO_STAGES = "h100 llama-3-70b tp=2 pp=2"
ONE_STAGE = "h100 llama-3-70b tp=2 max_model_len=512 kv_blocks=4096"


def served(
    fleet: str, *, requests: int, output_tokens: int = 40, model: str = "llama-3-70b"
) -> list[Outcome]:
    jobs = [
        Job(
            t_s=0.0,
            request=Request(id=f"q{n:03d}", model=model, prompt_tokens=200, max_tokens=output_tokens),
            prompt_tokens=200,
            output_tokens=output_tokens,
        )
        for n in range(requests)
    ]
    controller = Controller(load("routing", "round_robin"), load("queueing", "fcfs"))
    return simulate(jobs, servers(parse_fleet(fleet)), controller, load("batching", "split_fuse")).outcomes


def last_s(outcomes: list[Outcome]) -> float:
    return max(outcome.e2e_s or 0.0 for outcome in outcomes)


def tpot_s(outcomes: list[Outcome]) -> float:
    return mean([outcome.tpot_s for outcome in outcomes if outcome.tpot_s is not None])


def test_a_pipeline_is_described_in_a_line() -> None:
    (group,) = parse_fleet(TWO_STAGES)
    spec = group.replica_spec()
    assert (spec.tensor_parallel, spec.pipeline_parallel) == (2, 2)
    assert spec.price_per_h == 4 * 3.99
    assert spec.limits is not None
    assert spec.limits.step_tokens == 2 * group.limits.step_tokens
    (whole,) = parse_fleet("h100 llama-3-70b tp=4")
    assert spec.limits.kv_blocks == pytest.approx(whole.limits.kv_blocks, rel=0.1)
    (server,) = servers((group,))
    assert isinstance(server.cost, Pipelined)
    assert isinstance(servers((whole,))[0].cost, Roofline)


def test_a_model_that_does_not_fit_is_told_of_stages_too() -> None:
    with pytest.raises(ValueError, match=r"deepseek-v3 does not fit on 4x h100: .* GiB .*; tp=8 pp=2 fits"):
        parse_fleet("h100 deepseek-v3 tp=2 pp=2")
    with pytest.raises(ValueError, match="pp is '0'; write a whole number"):
        parse_fleet("h100 llama-3-70b pp=0")


def test_two_stages_answer_a_crowd_sooner_but_not_a_single_request() -> None:
    crowd = [served(fleet, requests=200) for fleet in (TWO_STAGES, ONE_STAGE)]
    assert all(outcome.status == "completed" for outcome in crowd[0])
    assert last_s(crowd[0]) < 0.75 * last_s(crowd[1])
    alone = [served(fleet, requests=1) for fleet in (TWO_STAGES, ONE_STAGE)]
    assert tpot_s(alone[0]) >= tpot_s(alone[1])


def test_ranks_share_the_experts_and_nothing_else() -> None:
    (group,) = parse_fleet("h200 mixtral-8x7b ep=4")
    spec = group.replica_spec()
    assert (spec.expert_parallel, spec.price_per_h) == (4, 4 * 3.99)
    (whole,) = parse_fleet("h200 mixtral-8x7b")
    assert spec.limits is not None
    assert spec.limits.kv_blocks > 1.5 * whole.limits.kv_blocks
    (server,) = servers((group,))
    assert server.ranks == 4
    outcomes = served("4x h200 mixtral-8x7b", requests=64, model="mixtral-8x7b")
    shared = served("h200 mixtral-8x7b ep=4", requests=64, model="mixtral-8x7b")
    assert all(outcome.status == "completed" for outcome in shared)
    assert last_s(shared) < last_s(outcomes)


@pytest.mark.parametrize(
    ("fleet", "problem"),
    [
        ("h100 llama-3-8b ep=2", "ep is 2; it must divide the 0 experts of llama-3-8b"),
        ("h200 mixtral-8x7b ep=3", "ep is 3; it must divide the 8 experts"),
        ("h200 mixtral-8x7b ep=2 pp=2", "pp and ep are not simulated together"),
        ("cpu mixtral-8x7b ep=2", "ep is 2, but a cpu has no link to another"),
    ],
)
def test_ranks_that_cannot_share_are_refused(fleet: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_fleet(fleet)
