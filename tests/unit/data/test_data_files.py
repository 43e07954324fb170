from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from millrace.core.cost import Linear
from millrace.core.trace import TraceSummary, inspect, read_trace, write_trace
from millrace.data import calibrations, open_calibration, open_trace

AZURE = ["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.6805900,374,44"]


@pytest.fixture(scope="module")
def azure() -> TraceSummary:
    return inspect(open_trace("azure_conv_2023"))


@pytest.fixture(scope="module")
def mooncake() -> TraceSummary:
    return inspect(open_trace("mooncake_conversation", spread=False))


def test_the_azure_trace_is_whole(azure: TraceSummary) -> None:
    assert (azure.requests, azure.failed, azure.disordered) == (19_366, 0, 0)
    assert azure.duration_s == 3501.721937
    assert azure.rate_per_s == pytest.approx(5.53, abs=0.005)
    assert round(azure.input_tokens.mean) == 1155
    assert round(azure.output_tokens.mean) == 211
    assert (azure.input_tokens.p50, azure.input_tokens.p99, azure.input_tokens.max) == (1020, 4142, 14050)
    assert (azure.output_tokens.p50, azure.output_tokens.p90, azure.output_tokens.max) == (129, 424, 1000)


def test_the_azure_trace_is_as_bursty_as_published(azure: TraceSummary) -> None:
    assert azure.interarrival_cv == pytest.approx(1.09, abs=0.005)
    assert azure.burstiness_1s == pytest.approx(1.4, abs=0.05)
    assert azure.burstiness_10s == pytest.approx(4.0, abs=0.05)
    assert azure.burstiness_60s == pytest.approx(20.6, abs=0.05)


def test_the_mooncake_trace_is_whole(mooncake: TraceSummary) -> None:
    assert (mooncake.requests, mooncake.failed, mooncake.disordered) == (12_031, 0, 0)
    assert mooncake.duration_s == 3536.999
    assert round(mooncake.input_tokens.mean) == 12_035
    assert round(mooncake.output_tokens.mean) == 343
    assert (mooncake.input_tokens.p50, mooncake.input_tokens.max) == (6909, 126_195)
    assert mooncake.interarrival_cv == pytest.approx(3.03, abs=0.005)


def test_the_mooncake_trace_reuses_as_many_blocks_as_published(mooncake: TraceSummary) -> None:
    assert mooncake.blocks == 288_500
    assert mooncake.block_hit_ratio == pytest.approx(0.366, abs=0.0005)


def test_spreading_makes_the_mooncake_arrivals_nearly_random() -> None:
    found = inspect(open_trace("mooncake_conversation"))
    assert found.disordered == 0
    assert found.interarrival_cv == pytest.approx(1.0, abs=0.05)


def test_a_shipped_trace_is_compressed_without_name_or_time() -> None:
    for path in (Path(__file__).parents[3] / "src" / "millrace" / "data" / "traces").glob("*.gz"):
        header = path.read_bytes()[:10]
        assert header[3:8] == bytes(5)


def test_any_file_can_be_opened_compressed_or_not(tmp_path: Path) -> None:
    plain, packed = tmp_path / "trace.csv", tmp_path / "trace.of.mine"
    plain.write_text("\r\n".join(AZURE))
    packed.write_bytes(gzip.compress("\n".join(AZURE).encode()))
    assert list(open_trace(plain)) == list(open_trace(str(packed))) == list(read_trace(AZURE))


def test_options_reach_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp":3000,"input_length":20,"output_length":0,"hash_ids":[1,2]}\n' * 2)
    found = list(open_trace(path, spread=False, block_tokens=16))
    assert [(r.t_s, r.blocks) for r in found] == [(3.0, (1,))] * 2
    assert list(open_trace(path, drop_failed=True, block_tokens=16)) == []


def test_a_shipped_trace_survives_our_own_format_unchanged() -> None:
    records = list(open_trace("mooncake_conversation"))[:500]
    assert list(read_trace(write_trace(records, "millrace"))) == records


def test_a_name_nobody_knows_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown trace 'azure_conv'; did you mean 'azure_conv_2023'"):
        open_trace("azure_conv")
    with pytest.raises(
        ValueError, match=r"there is no file day.jsonl; give the path of a trace, or one of azure"
    ):
        open_trace("day.jsonl")
    with pytest.raises(ValueError, match="is a folder; name a file in it"):
        open_trace(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1, header: the trace is empty"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        ("\n".join([*AZURE, "x,1,1"]).encode(), "line 3, TIMESTAMP: cannot read 'x'"),
        (gzip.compress("\n".join(AZURE).encode(), mtime=0)[:-9], "cannot be read: Compressed file ended"),
        (b"\x1f\x8bnot really", "cannot be read: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"trace.csv: {problem}"):
        list(open_trace(path))


def test_a_calibration_is_opened_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(Linear(base_s=0.25).to_dict()))
    assert open_calibration(path) == Linear(base_s=0.25)


def test_shipped_calibrations_can_all_be_opened() -> None:
    assert all(open_calibration(name).base_s >= 0 for name in calibrations())


@pytest.mark.parametrize("content", ["{", '{"schema":"other"}', "[]"])
def test_a_broken_calibration_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"mine.json: "):
        open_calibration(path)
    with pytest.raises(ValueError, match=r"there is no file no\.json; give the path of a calibration"):
        open_calibration("no.json")
