"""The examples work, and the ones that pages show are the ones in `examples/`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from pages import ROOT, read


@pytest.mark.parametrize("name", ["own_routing_policy.py", "test_own_routing_policy.py"])
def test_the_page_on_policies_shows_the_example(name: str) -> None:
    shown = {block.option("file"): block.text for block in read(ROOT / "docs" / "add-a-policy.md").blocks}
    example = (ROOT / "examples" / name).read_text(encoding="utf-8")
    assert shown[name] == example.replace("examples.own_routing_policy", "own_routing_policy")


def test_more_replicas_answer_more_requests_in_time() -> None:
    program = ROOT / "examples" / "simulate_in_python.py"
    said = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True).stdout
    in_time = [float(found) for found in re.findall(r"(\d+\.\d+) requests/s", said)]
    assert len(in_time) == 4
    assert in_time == sorted(in_time)
    assert in_time[0] < in_time[-1]
