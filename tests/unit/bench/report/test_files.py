"""The three files of a report."""

from __future__ import annotations

import json
from pathlib import Path

import millrace
from millrace.bench.report import PolicyRuns, Repeat, origin, repeated, write
from millrace.core.stats import summary
from tests.unit.bench.report.runs import outcome, refused, report, run


def test_the_summary_holds_the_numbers_of_every_run_and_their_differences(tmp_path: Path) -> None:
    made = report(PolicyRuns(name="p", live=run(client_lag_s=summary([0.001])), simulated=run()))
    written = write(made, tmp_path / "new" / "folder")
    found = json.loads(written.json.read_bytes())
    assert found["schema"] == "millrace.report/1"
    assert found["seed"] == 7
    assert found["slo"] == {"ttft_s": 0.5, "tpot_s": 0.05}
    assert found["config"] == {"engines": 3, "trace": "azure_conv_2023"}
    assert found["command"] == "millrace demo --seed 7"
    (policy,) = found["policies"]
    assert policy["name"] == "p"
    assert policy["live"]["measured"]["ttft_s"]["count"] == 120
    assert policy["live"]["client_lag_s"]["p99"] == 0.001
    assert policy["simulated"]["client_lag_s"] is None
    differences = {one["metric"]: one for one in policy["differences"]}
    assert differences["ttft_p50_s"]["relative"] == 0
    assert differences["slo_attainment"]["absolute"] == 0


def test_a_world_that_did_not_run_is_left_out(tmp_path: Path) -> None:
    written = write(report(PolicyRuns(name="p", simulated=run())), tmp_path)
    (policy,) = json.loads(written.json.read_bytes())["policies"]
    assert sorted(policy) == ["differences", "name", "simulated"]


def test_every_request_of_every_run_has_a_line(tmp_path: Path) -> None:
    one = PolicyRuns(name="p", live=run([outcome(), refused(1)]), simulated=run([outcome()]))
    written = write(report(one, PolicyRuns(name="q", live=run([outcome()]))), tmp_path)
    lines = [json.loads(line) for line in written.requests.read_bytes().splitlines()]
    assert [(line["policy"], line["world"], line["id"]) for line in lines] == [
        ("p", "live", "r0"),
        ("p", "live", "r1"),
        ("p", "simulated", "r0"),
        ("q", "live", "r0"),
    ]
    assert lines[1]["error"] == "http 503: the queue is full"
    assert lines[0]["first_token_s"] == 0.1


def test_every_repeat_is_in_the_files(tmp_path: Path) -> None:
    slow = run([outcome(first_token_s=0.15)])
    repeats = [Repeat(live=slow, simulated=run([outcome()])), Repeat(live=run([outcome()]), simulated=slow)]
    written = write(report(repeated("p", repeats)), tmp_path)
    (policy,) = json.loads(written.json.read_bytes())["policies"]
    assert [one["live"]["measured"]["ttft_s"]["p50"] for one in policy["repeats"]] == [0.15, 0.1]
    (ttft,) = [one for one in policy["differences"] if one["metric"] == "ttft_p50_s"]
    assert (ttft["live"], ttft["live_low"], ttft["live_high"]) == (0.125, 0.1, 0.15)
    assert ttft["within"] is True
    lines = [json.loads(line) for line in written.requests.read_bytes().splitlines()]
    worlds = [("live", 1), ("live", 2), ("simulated", 1), ("simulated", 2)]
    assert [(line["world"], line["repeat"]) for line in lines] == worlds


def test_writing_again_replaces_the_files(tmp_path: Path) -> None:
    write(report(), tmp_path)
    written = write(report(title="Another"), tmp_path)
    assert "Another" in written.html.read_text()
    assert len(written.requests.read_bytes().splitlines()) == 240


def test_an_origin_names_what_it_ran_on() -> None:
    found = origin(
        ["millrace", "demo", "--routing", "two_choices(d=2)"], packages=("msgspec", "no-such-thing")
    )
    assert found.command == "millrace demo --routing 'two_choices(d=2)'"
    assert found.versions.keys() == {"millrace", "python", "msgspec"}
    assert found.versions["millrace"] == millrace.__version__
    assert found.host.keys() == {"system", "processor", "cores", "memory"}
    assert found.created.endswith("+00:00")
