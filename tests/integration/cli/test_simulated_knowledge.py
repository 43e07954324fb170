"""What `millrace simulate` lets policies know of prompt caches, and how long it lets requests wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.control.log import read_header
from tests.integration.cli.test_simulate_options import say

CHATS = ("simulate", "--trace", "mooncake_conversation", "--requests", "600", "--routing", "dynamo_cost")
FLEET = ("--fleet", "5x h100 llama-3-8b max_model_len=131072 block_size=128")


def test_the_ways_to_know_of_caches_differ_and_what_engines_say_is_logged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hits = {}
    for knowledge in ("none", "sent", "events"):
        log = tmp_path / knowledge
        said = say(capsys, *CHATS, *FLEET, "--prefix-knowledge", knowledge, "--log", str(log), "--json")
        hits[knowledge] = said.policy["cache_hit_ratio"]
        assert (b"BlocksStored" in log.read_bytes()) == (knowledge == "events")
    assert hits["none"] < min(hits["sent"], hits["events"])


def test_options_of_the_controller_reach_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ("--prefix-knowledge", "events", "--prefix-ttl", "9", "--prefix-index-bytes", "70000")
    say(capsys, *CHATS[:4], "5", *FLEET, *words, "--max-waiting", "7", "--log", str(log))
    settings = read_header(log.read_bytes().splitlines()[0]).settings
    assert (settings.prefix_knowledge, settings.prefix_ttl_s) == ("events", 9.0)
    assert (settings.prefix_index_bytes, settings.max_waiting) == (70000, 7)


def test_prompts_may_be_known_in_other_blocks_than_the_traces(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    say(capsys, *CHATS[:4], "5", *FLEET, "--block-tokens", "64", "--log", str(log))
    assert b'"block_tokens":64' in log.read_bytes()
    talks = tmp_path / "talks.jsonl"
    say(
        capsys,
        "trace",
        "convert",
        "mooncake_conversation",
        str(talks),
        "--find-sessions",
        "--requests",
        "300",
    )
    closed = ("simulate", "--trace", str(talks), "--closed-loop", "--requests", "300", *FLEET)
    say(capsys, *closed, "--block-tokens", "64", "--log", str(log))
    assert b'"block_tokens":512' not in log.read_bytes()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--max-waiting", "0"), "--max-waiting is 0; it must be at least 1"),
        (("--prefix-ttl", "0"), "--prefix-ttl is 0.0; it must be a number of seconds above 0"),
        (("--block-tokens", "48"), "blocks of 512 tokens and the engine's of 48 do not divide each other"),
        (
            ("--prefix-knowledge", "events", "--block-tokens", "16"),
            "--block-tokens is 16, but engines tell of blocks of 128: leave it out, or set block_size",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_option(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], error: str
) -> None:
    said = say(capsys, *CHATS, *FLEET, *words)
    assert (said.code, error in said.err) == (2, True), said.err


def test_fleets_whose_caches_cannot_be_told_apart_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = "1x h100 llama-3-8b + 1x h100 llama-3-8b block_size=32"
    said = say(capsys, *CHATS, "--fleet", fleet, "--prefix-knowledge", "events")
    assert "--prefix-knowledge is events, but blocks have 16 and 32 tokens" in said.err
