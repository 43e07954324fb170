"""`millrace route` on logs that the simulator wrote: why, what others would do, and who foresaw it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.saying import Run

FLEET = "2x a100-80g qwen3-8b max_model_len=131072"
SMALL = ("--trace", "mooncake_conversation", "--fleet", FLEET, "--requests", "60", "--quiet")


@pytest.fixture
def log(millrace: Run, tmp_path: Path) -> str:
    """A log of our policy, with what it weighed."""
    path = tmp_path / "fleet.jsonl"
    said = millrace("simulate", *SMALL, "--routing", "millrace", "--log", str(path), "--log-scores")
    assert said.code == 0, said.err
    return str(path)


def logged(log: str) -> list[dict[str, Any]]:
    """Return every dispatch on record."""
    entries = [json.loads(line) for line in Path(log).read_text().splitlines()[1:]]
    return [action for entry in entries for action in entry["actions"] if action["type"] == "Dispatch"]


def test_what_is_explained_is_what_is_on_record(millrace: Run, log: str) -> None:
    for action in logged(log)[::20]:
        said = millrace("route", "explain", "--log", log, "--request", action["request_id"], "--json").json
        assert said["schema"] == "millrace.explanation/1"
        assert said["decision"]["replica"] == said["sent_to"] == action["replica"]
        shown = {one["replica"]: (one["place"], one["terms"], one["ttft_s"]) for one in said["candidates"]}
        weighed = action["reasons"]["weighed"]
        assert shown == {one["replica"]: (one["place"], one["terms"], one["ttft_s"]) for one in weighed}
        assert said["ttft_s"] > 0


def test_the_table_names_the_winner_and_the_rule(millrace: Run, log: str) -> None:
    action = logged(log)[30]
    said = millrace("route", "explain", "--log", log, "--request", action["request_id"])
    assert f"millrace sends it to {action['replica']}: {action['reasons']['why']}" in said.out
    assert "its first token came after" in said.out
    assert f"→ {action['replica']} " in said.out


def test_another_policy_and_another_moment_can_be_asked_about(millrace: Run, log: str) -> None:
    request = logged(log)[30]["request_id"]
    said = millrace("route", "explain", "--log", log, "--request", request, "--policy", "llmd_scores")
    assert "llmd_scores sends it to" in said.out
    assert "kv_cache" in said.out
    said = millrace("route", "explain", "--log", log, "--request", request, "--policy", "random")
    assert "this policy cannot tell what it weighed" in said.out
    asked = ("--at", "5", "--prefix-of", request, "--slo", "ttft=2s", "--prompt-tokens", "900")
    said = millrace("route", "explain", "--log", log, *asked)
    assert "at 5.000 s, asked, 900 prompt tokens for qwen3-8b" in said.out
    said = millrace("route", "explain", "--log", log, "--at=-1", "--prompt-tokens", "9", "--model", "m")
    assert "millrace does not send it: no ready replica" in said.out


def test_shadows_are_compared_and_change_nothing(millrace: Run, log: str) -> None:
    said = millrace("route", "shadow", "--log", log, "--policy", "millrace,round_robin", "--json").json
    same, other = said["shadows"]
    assert (same["policy"], same["disagreement"], same["decisions"]) == ("millrace", 0.0, 60)
    assert other["disagreement"] > 0.2
    assert other["mean_gain_s"] == pytest.approx(other["gain_s"]["mean"] * other["other"] / 60)
    assert sum(swap["requests"] for swap in other["swaps"]) == other["other"]
    table = millrace("route", "shadow", "--log", log, "--policy", "round_robin").out
    assert "rather to" in table
    replayed = millrace("replay", log, "--shadow", "round_robin")
    assert (replayed.code, replayed.out.splitlines()[0]) == (
        0,
        "182 events replayed: 60 of 60 actions identical",
    )
    assert "round_robin" in replayed.out
    found = millrace("replay", log, "--shadow", "round_robin", "--json").json
    assert (found["identical"], found["shadows"]) == (60, [other])


def test_predictions_are_held_against_first_tokens(millrace: Run, log: str) -> None:
    said = millrace("route", "report", "--log", log, "--json").json
    assert (said["schema"], said["scored"]) == ("millrace.predictions/1", 60)
    everybody = said["by_policy"][-1]
    assert (everybody["replica"], everybody["requests"]) == ("all", 60)
    assert everybody["p50_s"] < everybody["actual_s"]
    table = millrace("route", "report", "--log", log).out
    assert "predicted by millrace" in table
    assert "predicted by the forecast" in table


def test_a_log_that_would_not_be_written_again_is_warned_of(millrace: Run, log: str) -> None:
    path = Path(log)
    path.write_text(path.read_text().replace('"why":"soonest"', '"why":"luck"'))
    said = millrace("route", "report", "--log", log)
    assert said.code == 0
    assert "decisions differ from those on record from line" in said.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("explain",), "--request ID for one of the log, or --at SECONDS"),
        (("explain", "--request", "x", "--at", "3"), "say which decision"),
        (("explain", "--request", "nobody"), "no decision about a request 'nobody'"),
        (("explain", "--at", "3", "--prefix-of", "nobody"), "no request 'nobody' to begin like"),
        (("explain", "--request", "x", "--policy", "rando"), "no routing policy is called 'rando'"),
        (("explain", "--at", "3", "--slo", "ttft=2"), "--slo: cannot read the duration"),
        (("shadow", "--policy", ","), "no shadow is named"),
    ],
)
def test_what_cannot_be_answered_says_why(millrace: Run, log: str, words: tuple[str, ...], why: str) -> None:
    said = millrace("route", *words, "--log", log)
    assert (said.code, said.out) == (2, "")
    assert why in said.err


def test_what_is_no_log_is_named(millrace: Run, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    said = millrace("route", "report", "--log", str(path))
    assert (said.code, said.err) == (2, f"error: {path}: the log is empty\n")


def test_scores_without_a_log_are_refused(millrace: Run) -> None:
    said = millrace("simulate", *SMALL, "--log-scores")
    assert (said.code, said.err) == (2, "error: --log-scores is about the log: say --log FILE too\n")
