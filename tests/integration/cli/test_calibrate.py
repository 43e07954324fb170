"""`millrace calibrate`: a real engine from outside, a log of a fleet, and endpoints that are no engines."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest

from millrace.core.cost import Linear, StepShape
from millrace.data import open_calibration
from tests.integration.engine.process import Engine, serving

MODELS = b'{"object": "list", "data": [{"id": "demo", "max_model_len": 2048}]}'
SIMULATE = ("simulate", "--trace", "azure_conv_2023", "--fleet", "1x a100-80g llama-3-8b")
TRUTH = Linear(base_s=0.008, per_token_s=5e-5, per_context_s=2e-8)


def _millrace(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millrace", *words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def demo() -> Iterator[Engine]:
    """An engine with the demo model."""
    with serving(Path("demo"), "--served-model-name", "demo", "--kv-blocks", "2048") as engine:
        yield engine


def test_an_engine_is_measured_and_its_calibration_prices_a_simulation(demo: Engine, tmp_path: Path) -> None:
    out = tmp_path / "demo.json"
    words = ("--model", "demo", "--out", str(out), "--budget", "1s", "--max-model-len", "256", "--json")
    said = _millrace("calibrate", demo.url, *words)
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert report["model"] == "demo"
    assert report["rounds"] >= 1
    assert report["points_fitted"] >= 10
    assert report["points_held_out"] >= 2
    assert 0 < report["overhead_s"] < 1
    assert report["error"]["mean_by_kind"].keys() <= {"prefill", "decode", "mixed"}
    assert "point 1 of" in said.stderr

    cost = open_calibration(out)
    one = StepShape(decodes=1, decode_context_tokens=50, emits=1)
    full = StepShape(prefills=1, prefill_tokens=200, prefill_attended_tokens=20100, emits=1)
    assert 0 < cost.step_s(one) < cost.step_s(full)
    assert cost.expected_error.startswith("mean ")
    simulated = _millrace(*SIMULATE, "--requests", "20", "--calibration", str(out), "--json")
    assert simulated.returncode == 0, simulated.stderr


def test_a_model_that_the_engine_does_not_serve_is_named(demo: Engine, tmp_path: Path) -> None:
    said = _millrace("calibrate", demo.url, "--model", "dem", "--out", str(tmp_path / "c.json"))
    assert said.returncode == 2
    assert "did you mean 'demo'?" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_engine_of_several_names_must_be_told_which(demo: Engine, tmp_path: Path) -> None:
    said = _millrace("calibrate", demo.url, "--out", str(tmp_path / "c.json"))
    assert said.returncode == 2
    assert "serves demo, tiny; choose one with --model" in said.stderr


def test_a_context_longer_than_the_engines_is_refused(demo: Engine, tmp_path: Path) -> None:
    words = ("--model", "demo", "--out", str(tmp_path / "c.json"), "--max-model-len", "100000")
    said = _millrace("calibrate", demo.url, *words)
    assert said.returncode == 2
    assert "--max-model-len" in said.stderr


def test_an_engine_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        said = _millrace("calibrate", url, "--out", str(tmp_path / "c.json"))
    assert said.returncode == 3
    assert f"{url} cannot be reached" in said.stderr


@contextmanager
def _endpoint(models: bytes, body: bytes) -> Iterator[str]:
    """Serve a list of models, and the same bytes to every prompt."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(models)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._say(body)

        def log_message(self, format: str, *words: object) -> None:
            """Be silent."""

        def _say(self, said: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _against(body: bytes, tmp_path: Path, *, models: bytes = MODELS) -> tuple[int, str]:
    with _endpoint(models, body) as url:
        said = _millrace("calibrate", url, "--out", str(tmp_path / "c.json"))
    return said.returncode, said.stderr


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"<html>It works!</html>", "without [DONE]"),
        (b'{"choices": [{"text": "all at once"}]}', "without [DONE]"),
        (b"data: nonsense\n\n", "malformed"),
        (b"data: [DONE]\n\n", "no token"),
        (b'data: {"choices": [{"text": "all at once"}]}\n\ndata: [DONE]\n\n', "asked for 4 tokens, got 1"),
    ],
)
def test_an_endpoint_that_does_not_stream_tokens_is_told(tmp_path: Path, body: bytes, hint: str) -> None:
    code, said = _against(body, tmp_path)
    assert code == 1
    assert hint in said
    assert "Traceback" not in said


def test_an_endpoint_that_lists_no_models_is_told(tmp_path: Path) -> None:
    code, said = _against(b"", tmp_path, models=b"<html>It works!</html>")
    assert code == 1
    assert "no list of models" in said


def _log(tmp_path: Path, rate: float) -> Path:
    """The log of a simulated engine of known prices, under so many times the recorded load."""
    truth, log = tmp_path / "truth.json", tmp_path / "events.jsonl"
    truth.write_bytes(msgspec.json.encode(TRUTH.to_dict()))
    words = ("--requests", "200", "--rate", str(rate), "--calibration", str(truth), "--log", str(log))
    said = _millrace(*SIMULATE, *words)
    assert said.returncode == 0, said.stderr
    return log


def test_a_log_of_a_quiet_fleet_tells_the_prices_of_its_steps(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    said = _millrace("calibrate", "--from-log", str(_log(tmp_path, 0.01)), "--out", str(out), "--json")
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert report["requests_alone"] >= 100
    assert report["error"]["p95"] < 0.01
    step = StepShape(decodes=1, decode_context_tokens=1000, emits=1)
    assert open_calibration(out).step_s(step) == pytest.approx(TRUTH.step_s(step), rel=0.01)


def test_a_log_of_a_busy_fleet_says_what_is_missing(tmp_path: Path) -> None:
    log = _log(tmp_path, 5.0)
    said = _millrace("calibrate", "--from-log", str(log), "--out", str(tmp_path / "c.json"))
    assert said.returncode == 2
    assert "of 200 finished requests" in said.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ((), "--from-log"),
        (("http://127.0.0.1:9", "--from-log", "events.jsonl"), "--from-log"),
        (("127.0.0.1:8000",), "http://"),
        (("http://127.0.0.1:9", "--budget", "60"), "unit"),
        (("--from-log", "no-such-file.jsonl"), "no-such-file.jsonl"),
    ],
)
def test_what_cannot_begin_is_told_in_one_line(tmp_path: Path, words: tuple[str, ...], hint: str) -> None:
    said = _millrace("calibrate", *words, "--out", str(tmp_path / "c.json"))
    assert said.returncode == 2
    assert hint in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1


def test_where_nothing_can_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    for out, hint in ((tmp_path / "missing" / "c.json", "there is no folder"), (tmp_path, "is a folder")):
        said = _millrace("calibrate", "http://127.0.0.1:9", "--out", str(out))
        assert said.returncode == 2
        assert hint in said.stderr
