"""The demo on a small scale: real engines and traffic, both worlds, and a report that accounts for it all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from millrace.control.log import replay


@pytest.mark.timeout(300)
def test_the_demo_answers_every_request_in_both_worlds_and_its_logs_replay(tmp_path: Path) -> None:
    words = ["demo", "--json", "--requests", "16", "--repeats", "2", "--engines", "2"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "millrace",
            *words,
            "--routing",
            "prefix_affinity",
            "--out",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "32 requests sent live: 32 completed, 0 refused, 0 failed, 0 cancelled" in done.stderr
    report = json.loads(done.stdout)
    (policy,) = report["policies"]
    assert len(policy["repeats"]) == 2
    for run in (repeat[world] for repeat in policy["repeats"] for world in ("live", "simulated")):
        measured = run["measured"]
        assert (measured["requests"], measured["completed"], measured["refused"]) == (16, 16, 0)
        assert run["token_gap_s"]["count"] > 16
    assert all(one["live_low"] <= one["live"] <= one["live_high"] for one in policy["differences"])
    assert [one["repeat"] for one in report["config"]["calibrations"]] == [1, 2]
    lines = [json.loads(line) for line in (tmp_path / "out" / "requests.jsonl").read_text().splitlines()]
    runs = Counter((line["world"], line["repeat"]) for line in lines)
    assert runs == {(world, repeat): 16 for world in ("live", "simulated") for repeat in (1, 2)}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "prefix_affinity" in page
    assert "https://" not in page.replace("https://www.w3.org", "")
    logs = sorted((tmp_path / "out").glob("events-*.jsonl"))
    assert len(logs) == 4
    for log in logs:
        replayed = replay(log.read_bytes().splitlines(keepends=True))
        assert replayed.identical == replayed.actions >= 16
