"""`millrace simulate --predictor` tries on a log what `millrace serve` would do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from millrace.core.trace import write_trace
from millrace.core.trace.reshape import scale_rate
from tests.integration.cli.saying import Run
from tests.integration.cli.test_serve_predicting import made_up, predictor

FLEET = "1x rtx-4090 llama-3-8b max_num_seqs=1"
SERIAL = ("--queue-rule", "engine_queue=0,starvation=inf")


def test_short_answers_first_wait_less_on_the_same_log(millrace: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    crowded = scale_rate(made_up(200), 2.0)
    log.write_text("".join(line + "\n" for line in write_trace(crowded, "millrace")))

    def told(*words: str) -> Any:
        said = millrace("simulate", "--trace", str(log), "--fleet", FLEET, *SERIAL, *words, "--json")
        assert said.code == 0, said.err
        return said.json["policies"][0]

    usual = ("--routing", "least_request", "--max-hold", "100000", "--queueing")
    plain = told(*usual, "fcfs")
    ordered = told(*usual, "clairvoyant(patience_s=10000.0)", "--predictor", str(predictor(tmp_path)))
    assert plain["completed"] == ordered["completed"] == 200
    assert ordered["ttft_s"]["p50"] < plain["ttft_s"]["p50"] / 2
