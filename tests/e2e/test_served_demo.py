"""`millrace serve --demo` and `millrace demo` end in order when told to, and engines that die are mended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.unit.launch.children import all_end


@contextmanager
def served_demo(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve a demo of one engine; yield the process, its stderr read up to the ready line, and its URL."""
    words = ["serve", "--demo", "--engines", "1", "--port", "0", "--drain", "20"]
    with subprocess.Popen(
        [sys.executable, "-m", "millrace", *words], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as serving:
        try:
            yield serving, heard(serving, r"ready (http:\S+);")
        finally:
            serving.terminate()


def heard(serving: subprocess.Popen[str], pattern: str) -> str:
    """Read stderr until a line matches; return what its group holds."""
    assert serving.stderr is not None
    for line in serving.stderr:
        if found := re.search(pattern, line):
            return found[1]
    pytest.fail(f"it never said {pattern}")


def asked(url: str, **fields: object) -> HTTPResponse:
    """Ask for a completion; return its answer, whose body is still to be read."""
    body = json.dumps({"model": "demo", "prompt": "def f("} | fields).encode()
    answer: HTTPResponse = urlopen(f"{url}/v1/completions", data=body, timeout=60)
    return answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_a_stream_under_way_finish_and_ends_well(
    tmp_path: Path, number: signal.Signals
) -> None:
    with served_demo(tmp_path) as (serving, url):
        with asked(url, max_tokens=200, ignore_eos=True, stream=True) as stream:
            assert stream.readline().startswith(b"data: ")
            serving.send_signal(number)
            heard(serving, r"(stopping)")
            rest = stream.read()
        assert b'"error"' not in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        assert serving.wait(timeout=60) == 0


def test_an_engine_that_dies_is_named_and_comes_back(tmp_path: Path) -> None:
    with served_demo(tmp_path) as (serving, url):
        children = Path(f"/proc/{serving.pid}/task/{serving.pid}/children").read_text().split()
        (engine,) = (pid for pid in children if b"engine" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(int(engine), signal.SIGKILL)
        assert heard(serving, r"(engine-0 .*);") == "engine-0 was ended by signal 9"
        assert heard(serving, r"(engine-0 is back)")
        with asked(url, max_tokens=4) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == 4


def test_a_demo_that_is_told_to_end_leaves_no_process_behind(tmp_path: Path) -> None:
    words = ["demo", "--engines", "2", "--out", str(tmp_path / "out")]
    argv = [sys.executable, "-m", "millrace", *words]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as demo:
        listed, until_s = Path(f"/proc/{demo.pid}/task/{demo.pid}/children"), time.monotonic() + 60
        while len(children := [int(pid) for pid in listed.read_text().split()]) < 2:
            assert time.monotonic() < until_s, "the engines never started"
        demo.terminate()
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert said.endswith("interrupted\n")
    assert "Traceback" not in said
    assert all_end(children)
