"""Images, encoders and a shared cache, asked for on the command line of `millrace simulate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli.test_simulate_options import conversations, say

AZURE = ("simulate", "--trace", "azure_conv_2023", "--requests", "80")
SEEING = "2x h100 llama-3-8b encode_speed=20000"
APART = f"{SEEING} + 1x h100 llama-3-8b role=encode encode_speed=20000"
IMAGES = ("--media", "share=0.5,tokens=768/1792,distinct=20")


def test_images_go_to_who_only_encodes_and_everything_that_is_written_has_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, report = tmp_path / "out", tmp_path / "report"
    written = ("--requests-out", str(out), "--report", str(report), "--chrome-trace", str(tmp_path / "lanes"))
    found = say(capsys, *AZURE, "--fleet", APART, *IMAGES, "--routing", "elasticmm", *written, "--json")
    assert found.policy["completed"] == 80
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line.get("prefilled_on") for line in lines} == {"r2", None}
    assert all(line["prompt_tokens"] > 768 for line in lines if line.get("prefilled_on"))


def test_who_leaves_encoders_idle_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    idle = say(capsys, *AZURE, "--fleet", APART, *IMAGES, "--routing", "least_work").err
    assert "least_work: no image went to a replica with role=encode; try --routing elasticmm" in idle
    assert (
        "no request has media; put some into them with --media" in say(capsys, *AZURE, "--fleet", APART).err
    )


def test_turns_of_a_conversation_have_the_same_image(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log, talks = tmp_path / "log", conversations(tmp_path / "talks.jsonl")
    closed = ("simulate", "--trace", str(talks), "--closed-loop", "--fleet", SEEING, "--log", str(log))
    say(capsys, *closed, "--media", "share=1,tokens=64")
    arrived = [json.loads(line)["event"] for line in log.read_bytes().splitlines()[1:]]
    seen = {
        (one["request"]["session"], one["request"]["media"][0]["key"]) for one in arrived if "request" in one
    }
    assert len(seen) == 20


def test_a_shared_cache_is_found_wherever_a_request_goes(capsys: pytest.CaptureFixture[str]) -> None:
    chats = (
        "simulate",
        "--trace",
        "mooncake_conversation",
        "--requests",
        "250",
        "--routing",
        "least_request",
    )
    fleet = (*chats, "--fleet", "4x h100 llama-3-8b max_model_len=131072", "--json")
    alone, shared = say(capsys, *fleet), say(capsys, *fleet, "--cache-pool", "4TB,100GB/s,5us")
    assert shared.policy["cache_hit_ratio"] > 1.5 * alone.policy["cache_hit_ratio"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            IMAGES,
            "--media: the replicas 'h100 llama-3-8b' in --fleet have no encoder; say how fast they encode",
        ),
        (("--media", "share=0.5"), "--media: tokens is not said; write it like share=0.3,tokens="),
        (("--media", "share=0.5,size=3"), "--media: there is no 'size'; write it like"),
        (("--media", "share=half,tokens=3"), "--media: cannot read the numbers of 'share=half,tokens=3'"),
        (("--media", "share=2,tokens=3"), "--media: share is 2.0; it must be from 0 to 1"),
        (("--cache-pool", "8TB"), "--cache-pool: '8TB' says no bandwidth; write it like 8TB,100GB/s,5us"),
        (
            ("--cache-pool", "8,1GB/s"),
            "--cache-pool: cannot read the size '8'; write bytes above 0, like 8TB",
        ),
        (("--cache-pool", "8TB,1GB/s", "--energy"), "--energy: the joules of --cache-pool are not known"),
        (
            ("--cache-pool", "8TB,1GB/s", "--migration", "dualmap"),
            "--migration: with --cache-pool no request",
        ),
        (("--fleet", SEEING, "--energy"), "--energy: the joules of encoders in --fleet are not known"),
        (("--fleet", APART, "--migration", "dualmap"), "--migration: with role=encode in --fleet no request"),
        (("--fleet", SEEING, "--cache-pool", "8TB,1GB/s"), "--cache-pool: its replicas read text only"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_option(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], error: str
) -> None:
    said = say(capsys, *AZURE, *(() if "--fleet" in words else ("--fleet", "h100 llama-3-8b")), *words)
    assert (said.code, error in said.err) == (2, True), said.err
