"""Every verb as a person types it: data on stdout, words on stderr, one meaning per exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millrace import __version__
from tests.integration.cli.saying import Run

SMALL = ("--trace", "azure_conv_2023", "--fleet", "2x a100-80g llama-3-8b", "--requests", "60")


def test_the_version_is_told(millrace: Run) -> None:
    assert millrace("--version") == (0, f"millrace {__version__}\n", "")


def test_policies_are_listed_with_their_sources(millrace: Run) -> None:
    said = millrace("policies", "--json")
    listed = {(p["family"], p["name"]): p for p in json.loads(said.out)["policies"]}
    assert ("routing", "least_work") in listed
    assert all(p["about"] and p["source"] for p in listed.values())
    assert "prefix_affinity" in millrace("policies").out


def test_simulate_prints_one_object_with_every_policy(millrace: Run) -> None:
    said = millrace("simulate", *SMALL, "--routing", "round_robin,least_work", "--json")
    assert said.code == 0, said.err
    report = json.loads(said.out)
    assert [p["name"] for p in report["policies"]] == ["round_robin", "least_work"]
    for policy in report["policies"]:
        assert policy["requests"] == policy["completed"] == 60
        assert policy["throughput"] > 0
        assert policy["simulated_s"] > policy["wall_s"] > 0
        for latency in ("ttft_s", "tpot_s", "e2e_s"):
            assert 0 < policy[latency]["p50"] <= policy[latency]["p90"] <= policy[latency]["p99"]
        assert {"cache_hit_ratio", "slo_attainment"} <= policy.keys()


def test_a_simulated_log_replays_to_the_last_action(millrace: Run, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    assert millrace("simulate", *SMALL, "--log", str(log)).code == 0
    said = millrace("replay", str(log))
    assert (said.code, said.out.strip()) == (0, "182 events replayed: 60 of 60 actions identical")
    assert json.loads(millrace("replay", str(log), "--json").out)["identical"] == 60


def test_a_log_whose_actions_were_changed_fails_the_replay(millrace: Run, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    millrace("simulate", *SMALL, "--log", str(log))
    lines = log.read_text().splitlines(keepends=True)
    changed = next(n for n, line in enumerate(lines) if '"replica":"r0"' in line and "Dispatch" in line)
    lines[changed] = lines[changed].replace('"replica":"r0"', '"replica":"r1"')
    log.write_text("".join(lines))
    said = millrace("replay", str(log))
    assert said.code == 1
    assert f"line {changed + 1}" in said.out


def test_a_log_cut_in_its_last_line_is_replayed_up_to_there(millrace: Run, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    millrace("simulate", *SMALL, "--log", str(log))
    log.write_bytes(log.read_bytes()[:-20])
    said = millrace("replay", str(log))
    assert (said.code, said.out.strip()) == (0, "181 events replayed: 60 of 60 actions identical")
    assert said.err == f"{log}: the last line is cut off, as after a crash; it is left out\n"
    assert json.loads(millrace("replay", str(log), "--json").out)["cut_off"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "the log is empty"), ('{"schema":"millrace.log/1"', "line 1 is no log header")],
    ids=["empty", "half a header"],
)
def test_what_is_no_log_is_named(millrace: Run, tmp_path: Path, text: str, why: str) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text(text)
    said = millrace("replay", str(log))
    assert said.code == 2
    assert said.err.startswith(f"error: {log}: {why}")


def test_each_policy_of_several_gets_a_log_of_its_own(millrace: Run, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    assert millrace("simulate", *SMALL, "--routing", "round_robin,two_choices", "--log", str(log)).code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "events-round_robin.jsonl",
        "events-two_choices.jsonl",
    ]


def test_a_converted_trace_says_the_same(millrace: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    assert millrace("trace", "convert", "mooncake_conversation", str(copy), "--requests", "200").code == 0
    found = json.loads(millrace("trace", "inspect", str(copy), "--json").out)
    assert found["requests"] == 200
    assert found["block_hit_ratio"] > 0
    assert "requests" in millrace("trace", "inspect", str(copy)).out


BAD = [
    (("simulate", "--trace", "azure_conv", "--fleet", "1x h100 llama-3-8b"), "azure_conv_2023"),
    (("simulate", "--trace", "azure_conv_2023", "--fleet", "1x h1000 llama-3-8b"), "h100"),
    (("simulate", "--trace", "azure_conv_2023", "--fleet", "1x l40s llama-3-70b"), "GiB"),
    (("simulate", *SMALL, "--routing", "least_wok"), "least_work"),
    (("simulate", *SMALL, "--routing", "two_choices(seeds=1)"), "seed"),
    (("simulate", *SMALL, "--slo", "ttft=500"), "unit"),
    (("simulate", *SMALL, "--slo", "itl=5ms"), "ttft"),
    (("simulate", "--fleet", "1x h100 llama-3-8b"), "--trace"),
    (("simulate", *SMALL, "--requests", "0"), "--requests"),
    (("simulate", *SMALL, "--retry-floor", "-1"), "--retry-floor is -1.0"),
    (("replay", "no-such-file.jsonl"), "no-such-file.jsonl"),
    (("trace", "inspect", "no-such-file.csv"), "no-such-file.csv"),
    (("serve",), "--backend"),
    (("serve", "--demo", "--backend", "http://engine:1"), "one of the two, not both"),
    (("serve", "--backend", "ftp://engine:1"), "--backend: 'ftp://engine:1' must look like http://"),
    (("serve", "--backend", "https://engine:1"), "TLS is not spoken to engines"),
    (("serve", "--backend", "http://engine:1", "--scrape", "0"), "--scrape is 0.0"),
    (("serve", "--backend", "http://engine:1", "--max-body", "0"), "--max-body is 0"),
    (("serve", "--backend", "http://engine:1", "--max-hold", "-1"), "--max-hold is -1.0"),
    (
        ("serve", "--backend", "http://engine:1", "--event-log", "/no/such/log"),
        "--event-log: there is no folder /no/such",
    ),
    (("serve", "--backend", "http://engine:1", "--alias", "short"), "NAME=MODEL"),
    (("serve", "--backend", "http://engine:1", "--alias", "chat=a:0,b:1"), "weights above 0"),
    (("serve", "--backend", "http://engine:1", "--fallback", "a=b,b"), "--fallback: 'a' must fall back"),
    (("serve", "--backend", "http://engine:1", "--retry-ratio", "-1"), "--retry-ratio is -1"),
    (("engine", "--model", "/no/such/checkpoint"), "/no/such/checkpoint"),
    (("engine", "--batching", "splitfuse"), "split_fuse"),
    (("demo", "--routing", "nonsense"), "nonsense"),
]


@pytest.mark.parametrize(("words", "hint"), BAD, ids=[" ".join(words)[:60] for words, _ in BAD])
def test_bad_input_is_one_clear_line_and_exit_code_2(
    millrace: Run, words: tuple[str, ...], hint: str
) -> None:
    said = millrace(*words)
    assert said.code == 2, said.err
    assert said.out == ""
    assert hint in said.err
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_a_bad_row_of_a_trace_is_named_by_its_line(millrace: Run, tmp_path: Path) -> None:
    trace = tmp_path / "bad.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16,x,1\n"
    )
    said = millrace("trace", "inspect", str(trace))
    assert said.code == 2
    assert "line 3" in said.err


def test_without_arguments_there_is_help_and_no_empty_error(millrace: Run) -> None:
    for words in ((), ("trace",)):
        said = millrace(*words)
        assert said.code == 2
        assert "Usage: millrace" in said.out
        assert said.err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_so_and_nothing_else(tmp_path: Path, number: signal.Signals) -> None:
    log, until_s = tmp_path / "log", time.monotonic() + 60
    words = ["simulate", *SMALL[:-2], "--repeat", "50", "--log", str(log)]
    argv = [sys.executable, "-m", "millrace", *words]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        while not log.exists():
            assert time.monotonic() < until_s, "it never began"
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "interrupted\n")


def test_debug_shows_where_an_error_came_from() -> None:
    words = ["--debug", "replay", "no-such-file.jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "millrace", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
