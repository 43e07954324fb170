"""Servers of fleets described in a line, with one model or several."""

from __future__ import annotations

import pytest

from millrace.control import Controller
from millrace.core.fleet_spec import parse_fleet
from millrace.core.request import Slo
from millrace.core.trace import TraceRecord
from millrace.policies import load
from millrace.simulate import jobs_of, servers, simulate

TWO_MODELS = "2x h100 llama-3-8b, 1x l40s qwen3-8b"


def test_a_cold_start_is_the_time_its_weights_take() -> None:
    (group,) = parse_fleet("h100 llama-3-8b")
    (server,) = servers([group], load_bytes_per_s=2e9)
    assert server.cold_start_s == group.model.weight_bytes / 2e9
    assert servers([group])[0].cold_start_s == 0.0


def test_what_a_group_says_of_its_cold_start_wins_and_seconds_win_over_a_bandwidth() -> None:
    groups = parse_fleet(
        "h100 llama-3-8b cold_start=45s load_bandwidth=1GB/s, h100 llama-3-8b load_bandwidth=4GB/s, "
        "h100 llama-3-8b, cpu demo cold_start=0s"
    )
    weights = groups[0].model.weight_bytes
    found = servers(groups, cold_start_s=9.0, load_bytes_per_s=2e9)
    assert [server.cold_start_s for server in found] == [45.0, weights / 4e9, 9.0, 0.0]
    assert servers(groups, load_bytes_per_s=2e9)[2].cold_start_s == weights / 2e9


def test_engines_plan_ahead_where_the_fleet_says_so() -> None:
    found = servers(parse_fleet("h100 demo async_scheduling=on, h100 demo"))
    assert [server.ahead for server in found] == [True, False]


@pytest.mark.parametrize("routing", ["round_robin", "least_work", "prefix_affinity", "two_choices"])
def test_each_request_goes_to_a_replica_of_its_model(routing: str) -> None:
    models = ["llama-3-8b", "qwen3-8b", None, "gpt-9", "small"]
    records = [
        TraceRecord(id=f"q{n}", t_s=0.1 * n, input_tokens=100, output_tokens=10, model=models[n % 5])
        for n in range(40)
    ]
    jobs = jobs_of(records, "llama-3-8b", Slo(), models={"small": "qwen3-8b"})
    controller = Controller(load("routing", routing), load("queueing", "fcfs"))
    batching = load("batching", "split_fuse")
    found = simulate(jobs, servers(parse_fleet(TWO_MODELS)), controller, batching)
    replicas = {"llama-3-8b": {"r0", "r1"}, None: {"r0", "r1"}, "qwen3-8b": {"r2"}, "small": {"r2"}}
    for outcome in found.outcomes:
        model = models[int(outcome.id[1:]) % 5]
        if model == "gpt-9":
            assert (outcome.status, outcome.replica) == ("refused", None)
            assert outcome.error == "the model 'gpt-9' does not exist"
        else:
            assert outcome.status == "completed"
            assert outcome.replica in replicas[model]
    assert (found.measured.completed, found.measured.refused) == (32, 8)
    if routing == "round_robin":
        assert {outcome.replica for outcome in found.outcomes} == {"r0", "r1", "r2", None}
