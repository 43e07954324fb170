"""What `millrace simulate` can do beyond one run per policy."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from millrace.cli import main

AZURE = ("simulate", "--trace", "azure_conv_2023", "--fleet", "2x a100-80g llama-3-8b")
SMALL = (*AZURE, "--requests", "60")


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Return the JSON that a command prints; it must go well."""
    with pytest.raises(SystemExit) as left:
        main((*words, "--json"))
    out, err = capsys.readouterr()
    assert left.value.code == 0, err
    return json.loads(out)


def test_capacity_is_found_for_each_policy_alike_in_one_process_or_two(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*AZURE, "--requests", "150", "--find", "capacity", "--slo", "ttft=500ms,tpot=25ms")
    found = printed(capsys, *words, "--routing", "millrace,round_robin", "--jobs", "2")
    assert (found["schema"], found["attain"], found["unservable"]) == ("millrace.capacity/1", 0.95, 0)
    assert [policy["name"] for policy in found["policies"]] == ["millrace", "round_robin"]
    for policy in found["policies"]:
        assert policy["bounded"]
        assert 0 < policy["low_rps"] <= policy["capacity_rps"] <= policy["high_rps"]
        held = [probe["rate_rps"] for probe in policy["probes"] if probe["attained"] >= 0.95]
        assert policy["capacity_rps"] in held
    assert printed(capsys, *words)["policies"] == found["policies"][:1]


def test_a_fleet_that_breaks_can_take_less(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*AZURE, "--requests", "150", "--find", "capacity", "--slo", "ttft=500ms,tpot=25ms")
    faults = ("--faults", "kill r1 at 1s", "--network", "10ms")
    [whole], [broken] = (printed(capsys, *words, *more)["policies"] for more in ((), faults))
    assert 0 < broken["capacity_rps"] < whole["capacity_rps"]


def test_the_interval_of_several_seeds_holds_those_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*AZURE, "--requests", "150", "--find", "capacity", "--slo", "ttft=500ms,tpot=25ms")
    [one], [several] = (printed(capsys, *words, *more)["policies"] for more in ((), ("--repeat", "3")))
    assert several["capacity_rps"] == one["capacity_rps"]
    assert [repeat["seed"] for repeat in several["repeats"]] == [1, 2]
    every = (one, *several["repeats"])
    assert len({found["capacity_rps"] for found in every}) == 3
    assert several["low_rps"] == min(found["low_rps"] for found in every)
    assert several["high_rps"] == max(found["high_rps"] for found in every)


def test_more_replicas_can_take_more(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--requests", "150", "--find", "capacity", "--slo", "tpot=20ms", "--attain", "0.9")
    rates = [
        printed(capsys, *AZURE[:-1], f"{count}x a100-80g llama-3-8b", *words)["policies"][0]["capacity_rps"]
        for count in (1, 2)
    ]
    assert 0 < 1.3 * rates[0] < rates[1]


def test_requests_that_fit_no_replica_are_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = ("--fleet", "1x a100-80g llama-3-8b max_model_len=1024")
    found = printed(capsys, *AZURE[:3], *fleet, "--requests", "100", "--find", "capacity")
    assert 0 < found["unservable"] < 100
    assert found["policies"][0]["capacity_rps"] > 0


def test_policies_are_compared_request_by_request_over_all_repeats(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*SMALL, "--rate", "4", "--routing", "least_work,round_robin", "--repeat", "3")
    found = printed(capsys, *words, "--jobs", "2")
    assert [p["name"] for p in found["policies"]] == ["least_work", "round_robin"]
    for policy in found["policies"]:
        assert [one["seed"] for one in policy["repeats"]] == [1, 2]
        assert len({policy["e2e_s"]["mean"], *(one["e2e_s"]["mean"] for one in policy["repeats"])}) == 3
    [versus] = found["comparisons"]
    assert (versus["policy"], versus["baseline"]) == ("round_robin", "least_work")
    difference = versus["difference"]
    assert difference["requests"] == 3 * 60
    assert difference["e2e_s"]["low"] < difference["e2e_s"]["mean"] < difference["e2e_s"]["high"]
    means = [
        sum(run["e2e_s"]["mean"] for run in (policy, *policy["repeats"])) / 3 for policy in found["policies"]
    ]
    assert difference["e2e_s"]["mean"] == pytest.approx(means[1] - means[0])
    assert printed(capsys, *words)["comparisons"] == found["comparisons"]


def test_batching_policies_are_compared_each_with_each_routing_policy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    named = ("--routing", "least_work,round_robin", "--batching", "split_fuse,adaptive_budget(tpot_s=0.02)")
    found = printed(capsys, *SMALL, *named, "--log", str(tmp_path / "log.jsonl"))
    names = [policy["name"] for policy in found["policies"]]
    assert names == [
        "least_work+split_fuse",
        "least_work+adaptive_budget(tpot_s=0.02)",
        "round_robin+split_fuse",
        "round_robin+adaptive_budget(tpot_s=0.02)",
    ]
    assert len({policy["e2e_s"]["mean"] for policy in found["policies"]}) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"log-{name}.jsonl" for name in names)


def test_sensitivity_runs_again_with_faster_and_slower_steps(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, *SMALL, "--sensitivity")
    tpot_s = {1.0: found["policies"][0]["tpot_s"]["mean"]}
    tpot_s |= {one["step_scale"]: one["tpot_s"]["mean"] for one in found["sensitivity"]}
    assert sorted(tpot_s) == [0.9, 1.0, 1.1]
    assert tpot_s[0.9] == pytest.approx(0.9 * tpot_s[1.0], rel=0.05)
    assert tpot_s[1.1] == pytest.approx(1.1 * tpot_s[1.0], rel=0.05)


def test_people_get_a_table_for_everything_they_ask_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main((*SMALL, "--routing", "least_work,round_robin", "--repeat", "2", "--sensitivity"))
    out = capsys.readouterr().out
    for words in ("policy", "least_work, seed 1", "round_robin, +10%", "round_robin to least_work"):
        assert words in out


def test_every_request_of_every_policy_and_seed_has_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "requests.jsonl"
    words = ("--routing", "least_work,round_robin", "--repeat", "2", "--sensitivity")
    found = printed(capsys, *SMALL, *words, "--requests-out", str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 4 * 60
    keys = {(line["policy"], line["seed"], line["id"]) for line in lines}
    assert len(keys) == len(lines)
    main_run = [line["e2e_s"] for line in lines if (line["policy"], line["seed"]) == ("least_work", 0)]
    assert sum(main_run) / 60 == pytest.approx(found["policies"][0]["e2e_s"]["mean"])


def test_a_report_of_simulated_runs_is_a_page_and_its_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = printed(capsys, *SMALL, "--routing", "least_work,round_robin", "--report", str(tmp_path))
    report = json.loads((tmp_path / "report.json").read_text())
    assert [policy["name"] for policy in report["policies"]] == ["least_work", "round_robin"]
    for told, shown in zip(found["policies"], report["policies"], strict=True):
        assert "live" not in shown
        assert shown["simulated"]["measured"]["e2e_s"] == told["e2e_s"]
        assert shown["simulated"]["token_gap_s"] == told["itl_s"]
        assert told["itl_s"]["count"] > 0
        assert len(shown["simulated"]["occupancy"]["replicas"]) > 1
    page = (tmp_path / "report.html").read_text()
    assert "How full the fleet was" in page
    assert page.startswith("<!doctype html>")
    assert "round_robin" in page


def test_lanes_of_replicas_do_not_overlap_and_change_no_result(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = (*SMALL, "--routing", "least_work,round_robin")
    found = printed(capsys, *words, "--chrome-trace", str(tmp_path / "lanes.json"))
    assert [p["e2e_s"] for p in found["policies"]] == [
        p["e2e_s"] for p in printed(capsys, *words)["policies"]
    ]
    for policy in ("least_work", "round_robin"):
        events = json.loads((tmp_path / f"lanes-{policy}.json").read_text())["traceEvents"]
        names = {event["args"]["name"] for event in events if event["ph"] == "M"}
        assert names == {policy, "r0", "r1"}
        slices = [event for event in events if event["ph"] == "X"]
        assert sum(event["args"]["ended"] for event in slices) == 60
        for lane in (1, 2):
            own = [event for event in slices if event["tid"] == lane]
            for before, after in pairwise(own):
                assert before["ts"] + before["dur"] <= after["ts"] + 1e-3


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ((*SMALL, "--find", "capacity", "--attain", "95"), "attain is 95"),
        ((*SMALL[:-1], "1", "--find", "capacity"), "no rate"),
        ((*SMALL, "--find", "capacity", "--sensitivity"), "leave out --sensitivity"),
        ((*SMALL, "--routing", ","), "names no policy"),
        ((*SMALL, "--find", "capacity", "--batching", "split_fuse,decode_first"), "one batching policy"),
        ((*SMALL, "--batching", "split_fuse,decode"), "no batching policy is called 'decode'"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert hint in err
    assert len(err.strip().splitlines()) == 1
