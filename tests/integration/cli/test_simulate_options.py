"""What `millrace simulate` lets happen to a fleet, and what it lets requests ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from millrace.cli import main

AZURE = ("simulate", "--trace", "azure_conv_2023", "--requests", "120")
TWO = (*AZURE, "--fleet", "2x a100-80g llama-3-8b")
MIXED = (*AZURE, "--fleet", "2x a100-80g llama-3-8b + 1x h100 qwen3-8b")
SERVING = Path(__file__).parents[2] / "data/profiles/serving/RTX4090/meta-llama/Llama-3.1-8B/bf16"


class Said(NamedTuple):
    """What a command left behind."""

    code: int | str | None
    out: str
    err: str

    @property
    def policy(self) -> Any:
        """The first policy of the JSON that it printed."""
        assert self.code == 0, self.err
        return json.loads(self.out)["policies"][0]


def say(capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    with pytest.raises(SystemExit) as left:
        main(words)
    out, err = capsys.readouterr()
    return Said(left.value.code, out, err)


def conversations(path: Path) -> Path:
    """Twenty conversations of three turns, a second apart, whatever the answers take."""
    rows = [
        {"id": f"{talk}.{turn}", "t_s": talk + turn, "input_tokens": 100 * (turn + 1), "output_tokens": 200}
        | {"session": f"s{talk}"}
        for talk in range(20)
        for turn in range(3)
    ]
    rows.sort(key=lambda row: float(str(row["t_s"])))
    lines = [{"schema": "millrace.trace/1", "source": "made up"}, *rows]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


def test_what_a_dead_replica_had_begun_fails_and_the_rest_is_answered_elsewhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "requests.jsonl"
    said = say(capsys, *TWO, "--faults", "kill r1 at 5s", "--requests-out", str(out), "--json")
    assert 0 < said.policy["failed"] < 30
    assert said.policy["failed"] + said.policy["completed"] == 120
    assert f"millrace: {said.policy['failed']} requests did not complete: the replica went down" in said.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["replica"] for line in lines if line["scheduled_s"] > 5} == {"r0"}


def test_answers_leave_a_replica_that_drains_by_the_way_that_is_soonest_over_the_link(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ways = {}
    for failover, link in (("off", "50GB/s"), ("on", "50GB/s"), ("on", "0.001MB/s")):
        log = tmp_path / "events.jsonl"
        options = ("--faults", "drain r1 at 5s", "--failover", failover, "--link", link, "--log", str(log))
        assert say(capsys, *TWO, *options, "--json").policy["completed"] == 120
        moves = [line for line in log.read_text().splitlines() if '"Move"' in line]
        ways[failover, link] = {why for why in ("move", "replay") if f'"why":"{why}"' in "".join(moves)}
    assert ways == {("off", "50GB/s"): set(), ("on", "50GB/s"): {"move"}, ("on", "0.001MB/s"): {"replay"}}


def test_a_cold_start_is_typed_or_follows_from_the_weights_or_stands_in_the_fleet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    late = ("--faults", "start r0 at 0s", "--max-hold", "1000", "--json")

    def waited_s(*words: str, fleet: str = "a100-80g llama-3-8b") -> float:
        """How long the first request waits for the only replica, which is not there yet."""
        found: float = say(capsys, *AZURE, "--fleet", fleet, *late, *words).policy["ttft_s"]["max"]
        return found

    soon_s = waited_s()
    assert waited_s("--cold-start", "30s") > 29 > soon_s
    assert waited_s("--load-bandwidth", "1GB/s") > 15
    stated_s = waited_s("--cold-start", "1h", fleet="a100-80g llama-3-8b cold_start=30s")
    assert stated_s == waited_s("--cold-start", "30s")


def test_ways_to_engines_are_added(capsys: pytest.CaptureFixture[str]) -> None:
    near, far = (say(capsys, *TWO, *words, "--json").policy for words in ((), ("--network", "1s,2s")))
    assert far["ttft_s"]["min"] == pytest.approx(near["ttft_s"]["min"] + 3.0, abs=0.02)


def test_with_scrapes_a_replica_is_there_when_it_is_next_asked(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*AZURE, "--fleet", "a100-80g llama-3-8b", "--faults", "start r0 at 1s", "--json")
    heard, asked = (say(capsys, *words, *more).policy for more in ((), ("--scrape", "20s")))
    assert heard["ttft_s"]["max"] < 10 < 19 < asked["ttft_s"]["max"]


def test_engines_of_one_machine_slow_each_other_down(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*TWO[:3], "--requests", "40", *TWO[5:], "--rate", "x4")
    apart, together = (say(capsys, *words, *more, "--json").policy for more in ((), ("--slowdowns", "x1,x2")))
    assert 1.2 * apart["tpot_s"]["mean"] < together["tpot_s"]["mean"]


def test_a_trace_is_shared_among_models_that_are_measured_apart(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "requests.jsonl"
    shared = (*MIXED, "--models", "llama-3-8b:70,qwen3-8b:30")
    said = say(capsys, *shared, "--requests-out", str(out), "--json")
    models = said.policy["models"]
    assert sorted(models) == ["llama-3-8b", "qwen3-8b"]
    assert sum(model["requests"] for model in models.values()) == said.policy["completed"] == 120
    assert 20 < models["qwen3-8b"]["requests"] < 52
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(line["model"], line["replica"] == "r2") for line in lines} == {
        ("llama-3-8b", False),
        ("qwen3-8b", True),
    }
    again = say(capsys, *shared, "--routing", "least_work,two_choices")
    assert "least_work, qwen3-8b" in again.out
    assert "qwen3-8b on h100" in again.out


def test_who_forgot_to_share_is_told_unless_they_want_it_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, *MIXED, "--json")
    assert "120 requests name no model, and all of them ask for llama-3-8b" in said.err
    assert said.policy["models"] == {}
    assert say(capsys, *MIXED, "--json", "--quiet").err == ""


def test_turns_wait_for_the_answers_before_them_in_any_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = (
        "simulate",
        "--trace",
        str(conversations(tmp_path / "talks.jsonl")),
        "--fleet",
        "h100 llama-3-8b",
    )
    loop = (*trace, "--closed-loop", "--think", "5s", "--rate", "x2", "--repeat", "2")
    out = tmp_path / "requests.jsonl"
    said = say(capsys, *loop, "--requests-out", str(out), "--json")
    assert said.policy["completed"] == 60
    lines = {(line["seed"], line["id"]): line for line in map(json.loads, out.read_text().splitlines())}
    for seed in (0, 1):
        for talk in range(20):
            first, second, _ = (lines[seed, f"{talk}.{turn}"] for turn in range(3))
            assert second["scheduled_s"] == pytest.approx(first["finished_s"] + 5.0)
    assert lines[0, "7.0"]["scheduled_s"] == 3.5
    spread = say(capsys, *loop, "--jobs", "2", "--json").policy
    assert {**spread, "wall_s": 0, "repeats": 0} == {**said.policy, "wall_s": 0, "repeats": 0}


def test_the_quality_of_prices_is_printed_and_part_of_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = ("--fleet", "1x rtx-4090 llama-3-8b, 1x h100 llama-3-8b")
    words = (*AZURE, *fleet, "--profile", f"llama-3-8b@rtx-4090={SERVING}", "--find", "capacity")
    found = json.loads(say(capsys, *words[:-2], "--json").out)
    assert {price["steps"]: price["quality"] for price in found["prices"]} == {
        "llama-3-8b on rtx-4090": "measured grid",
        "llama-3-8b on h100": "uncalibrated roofline",
    }
    assert all(price["expected_error"] and price["source"] for price in found["prices"])
    assert found["settings"]["profile"] == [f"llama-3-8b@rtx-4090={SERVING}"]
    table = say(capsys, *words).out
    assert "measured grid (meta-llama/Llama-3.1-8B on RTX4090" in table
    assert "uncalibrated roofline" in table


def test_lengths_and_rates_may_be_written_with_an_x(capsys: pytest.CaptureFixture[str]) -> None:
    once, twice = (say(capsys, *TWO, *words, "--json").policy for words in ((), ("--rate", "x2")))
    assert twice["throughput_rps"] > 1.3 * once["throughput_rps"]
    both = say(capsys, *TWO, "--lengths", "x0.5", "--output-scale", "2", "--json").policy
    split = say(capsys, *TWO, "--input-scale", "0.5", "--json").policy
    assert both["e2e_s"]["mean"] == pytest.approx(split["e2e_s"]["mean"], rel=0.02)


def test_faults_that_come_too_late_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, *TWO, "--faults", "kill r1 at 2h; start r1 at 3h")
    assert "2 faults never happened, like kill r1 at 7200s" in said.err


def test_a_cold_start_of_nobody_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no replica starts in this run" in say(capsys, *TWO, "--cold-start", "5s").err
    assert say(capsys, *TWO, "--cold-start", "5s", "--faults", "start r1 at 1s").err == ""


def test_help_is_in_panels(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "simulate", "--help")
    for panel in (
        "What comes in",
        "What serves it",
        "Who decides",
        "What happens meanwhile",
        "What is written",
    ):
        assert panel in said.out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--think", "5s"), "say --closed-loop too"),
        (("--closed-loop",), "no request of this trace follows another"),
        (("--closed-loop", "--think", "5"), "--think: cannot read the duration '5'"),
        (("--slowdowns", "x1,fast"), "--slowdowns: 'fast' is no factor"),
        (("--profile", "a", "--calibration", "b"), "leave out one of them"),
        (("--models", "gpt"), "unknown model of the fleet 'gpt'"),
        (("--rate", "fast"), "'fast' is no factor"),
        (("--cold-start", "9"), "--cold-start: cannot read the duration '9'"),
        (("--load-bandwidth", "9"), "--load-bandwidth: cannot read the bandwidth '9'"),
        (("--faults", "kill r9 at 1s"), "unknown replica 'r9'"),
        (
            ("--find", "capacity", "--closed-loop"),
            "--closed-loop lets it follow: leave it out",
        ),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str
) -> None:
    said = say(capsys, *TWO, *words)
    assert (said.code, said.out) == (2, "")
    assert hint in said.err
    assert len(said.err.strip().splitlines()) == 1


def test_dollars_are_always_told_and_joules_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    plain = say(capsys, *TWO, "--json")
    assert plain.policy["cost_usd"] > 0
    assert plain.policy["energy_j"] is None
    metered = say(capsys, *TWO, "--energy", "--json")
    assert metered.policy["energy_per_token_j"] > 0
    assert "estimated" in json.loads(metered.out)["energy_sources"]["llama-3-8b on a100-80g"]
    table = say(capsys, *TWO, "--energy", "-q")
    assert "modelled" in table.out


def test_gaps_between_tokens_are_told_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, *TWO, "--json").policy["itl_s"] is None
    found = say(capsys, *TWO, "--itl", "--json").policy
    assert found["itl_s"]["count"] > found["completed"]
    assert found["itl_s"]["p50"] <= found["itl_s"]["p99"] <= found["itl_s"]["max"]
    assert "ITL p99" in say(capsys, *TWO, "--itl", "-q").out


def test_a_calibration_without_power_draws_what_the_data_sheet_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert say(capsys, *TWO, "--calibration", "demo-cpu", "--energy", "--json").policy["energy_j"] > 0


APART = (*AZURE, "--fleet", "1x h100 llama-3-8b role=prefill + 1x h100 llama-3-8b role=decode")


def test_prompts_are_computed_apart_and_who_did_so_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "requests.jsonl"
    words = ("--routing", "disaggregated", "--link", "25GB/s,20us", "--requests-out", str(out), "--json")
    assert say(capsys, *APART, *words).policy["completed"] == 120
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line.get("prefilled_on") for line in lines} == {"r0", None}
    assert {line["replica"] for line in lines} == {"r1"}


def test_a_policy_that_leaves_prefill_replicas_idle_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "millrace: no prompt went to a replica with role=prefill" in say(capsys, *APART).err


def test_requests_are_spread_over_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = "2x a100-80g llama-3-8b max_loras=1 lora_load=300ms"
    plain = say(capsys, *AZURE, "--fleet", fleet, "--json").policy
    spread = say(capsys, *AZURE, "--fleet", fleet, "--adapters", "9", "--json").policy
    assert spread["ttft_s"]["mean"] > plain["ttft_s"]["mean"] + 0.1
    unlimited = say(capsys, *TWO, "--adapters", "9")
    assert "say max_loras in --fleet" in unlimited.err


def test_requests_move_if_a_policy_is_to_move_them(capsys: pytest.CaptureFixture[str]) -> None:
    fleet = ("--fleet", "2x rtx-4090 llama-3-8b kv_blocks=300", "--rate", "x4", "--scrape", "500ms")
    words = (*AZURE, *fleet, "--migration", "llumnix")
    moved = say(capsys, *words, "--json").policy
    assert moved["completed"] == 120
    assert moved["moves_per_request"] > 0
    assert moved["downtime_s"]["count"] > 0
    assert "downtime mean" in say(capsys, *words).out
    stayed = say(capsys, *AZURE, *fleet, "--json").policy
    assert (stayed["moves_per_request"], stayed["downtime_s"]) == (0.0, None)
