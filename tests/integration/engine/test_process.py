"""An engine as a process: how it starts, what it tells of itself, whom it forgets, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from millrace.core.cost import StepShape
from tests.integration.engine.process import MODEL, Engine, command, eventually, serving

LONG: dict[str, Any] = {"model": MODEL, "prompt": "On and on", "extra_body": {"ignore_eos": True}}


def test_the_process_tells_its_models_version_and_health(engine: Engine) -> None:
    (card,) = engine.client.models.list().data
    assert (card.id, card.owned_by) == (MODEL, "millrace")
    assert engine.client.models.retrieve(MODEL) == card
    assert json.loads(engine.get("/version"))["version"]
    assert engine.get("/health") == ""


def test_text_survives_the_way_through_tokens(engine: Engine) -> None:
    text = "The mill, 日本語 and ☃"
    found = engine.post("/tokenize", {"prompt": text})
    assert found["count"] == len(found["tokens"])
    assert engine.post("/detokenize", {"tokens": found["tokens"]})["prompt"] == text
    assert (
        engine.post("/tokenize", {"messages": [{"role": "user", "content": text}]})["count"]
        == found["count"] + 2
    )


@pytest.mark.parametrize(("sent", "kept"), [("my-id.7", True), ("", False), ("x" * 200, False)])
def test_every_response_has_a_request_id(engine: Engine, sent: str, kept: bool) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        engine.client.completions.create(model="other", prompt="a", extra_headers={"x-request-id": sent})
    returned = refused.value.response.headers["x-request-id"]
    assert (returned == sent) if kept else returned.startswith("req_")


def test_metrics_count_what_was_done_under_the_names_of_vllm(engine: Engine) -> None:
    names = ("prompt_tokens_total", "generation_tokens_total", "time_to_first_token_seconds_count")
    before = [engine.metric(name) for name in names]
    lengths, hits = engine.metric("request_success_total", "length"), engine.metric("prefix_cache_hits_total")
    for _ in range(2):
        engine.client.completions.create(**LONG, max_tokens=10)
    prompt = engine.post("/tokenize", {"prompt": "On and on"})["count"]
    assert [engine.metric(name) for name in names] == [
        before[0] + 2 * prompt,
        before[1] + 20,
        before[2] + 2,
    ]
    assert engine.metric("request_success_total", "length") == lengths + 2
    assert engine.metric("prefix_cache_hits_total") > hits
    assert engine.metric("inter_token_latency_seconds_count") >= 18
    assert engine.metric("e2e_request_latency_seconds_count") >= 2
    assert engine.metric("cache_config_info", 'block_size="4"') == 1
    assert engine.metric("kv_cache_usage_perc") == engine.metric("num_requests_running") == 0


def test_a_client_that_leaves_a_stream_is_forgotten(engine: Engine) -> None:
    aborted = engine.metric("request_success_total", "abort")
    with engine.client.completions.create(**LONG, n=64, max_tokens=100, stream=True) as stream:
        next(iter(stream))
        assert engine.metric("num_requests_running") > 0
    assert eventually(
        lambda: engine.metric("num_requests_running") + engine.metric("num_requests_waiting") == 0
    )
    assert engine.metric("request_success_total", "abort") > aborted
    assert eventually(lambda: engine.metric("kv_cache_usage_perc") == 0)


def test_a_client_that_does_not_wait_for_its_answer_is_forgotten(engine: Engine) -> None:
    aborted = engine.metric("request_success_total", "abort")
    client = engine.client.with_options(timeout=0.2)
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(**LONG, n=128, max_tokens=100)
    assert eventually(
        lambda: engine.metric("num_requests_running") + engine.metric("num_requests_waiting") == 0
    )
    assert engine.metric("request_success_total", "abort") > aborted


def test_a_reader_that_does_not_read_holds_up_nobody_and_loses_nothing(engine: Engine) -> None:
    body = {
        "prompt": "On and on",
        "n": 60,
        "max_tokens": 100,
        "stream": True,
        "logprobs": 20,
        "ignore_eos": True,
    }
    raw = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    host, port = engine.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.connect((host, int(port)))
        slow.sendall(head.encode() + raw)
        assert engine.client.completions.create(**LONG, max_tokens=20).usage
        assert eventually(lambda: engine.metric("num_requests_running") == 0)
        with slow.makefile("rb") as stream:
            events = [json.loads(line[6:]) for line in stream if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in event["choices"]]
    assert sum(len(choice["logprobs"]["tokens"]) for choice in choices) == 6000
    assert sum(choice["finish_reason"] == "length" for choice in choices) == 60


def test_on_sigterm_running_answers_are_finished(model: Path) -> None:
    with serving(model) as engine:
        stream = engine.client.completions.create(**LONG, max_tokens=100, stream=True)
        next(stream)
        engine.process.send_signal(signal.SIGTERM)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        assert engine.process.wait(20) == 0


def test_answers_that_take_too_long_are_ended_after_sigterm(model: Path) -> None:
    with serving(model, "--drain", "0") as engine:
        stream = engine.client.completions.create(**LONG, n=100, max_tokens=100, stream=True)
        next(stream)
        engine.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="is stopping"):
            list(stream)
        assert engine.process.wait(20) == 0


def test_the_step_log_holds_every_step_as_a_cost_model_reads_it(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    with serving(model, "--step-log", str(path)) as engine:
        engine.client.completions.create(**LONG, max_tokens=10)
    lines = path.read_bytes().splitlines()
    shapes = [msgspec.json.decode(line, type=StepShape) for line in lines]
    assert [(shape.prefills, shape.decodes) for shape in shapes] == [(1, 0)] + [(0, 1)] * 9
    assert all(json.loads(line)["seconds"] > 0 for line in lines)


def failure(folder: Path, *options: str) -> tuple[int, str]:
    ended = subprocess.run(
        command(folder, *options), stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stderr


def test_a_port_in_use_ends_the_start_with_one_line(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = failure(model, "--port", str(port))
    assert code == 2
    assert said.splitlines() == [
        f"millrace engine: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port"
    ]


def test_a_checkpoint_that_is_none_ends_the_start_with_one_line(tmp_path: Path) -> None:
    code, said = failure(tmp_path)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert f"{tmp_path}/config.json: not found" in said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "foo"), "--device foo: no such kind of device; choose cpu, cuda or cuda:N"),
        (
            ("--max-model-len", "999999"),
            "--max-model-len 999999: this model knows 128 positions; give at most 128",
        ),
    ],
    ids=["device", "length"],
)
def test_an_option_that_cannot_be_followed_ends_the_start_with_one_line(
    model: Path, options: tuple[str, ...], told: str
) -> None:
    assert failure(model, *options) == (2, f"millrace engine: {told}\n")
