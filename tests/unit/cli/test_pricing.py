"""What prices the steps of a fleet's groups, and what is said of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from millrace.cli.simulating.pricing import parse_profiles, price_of
from millrace.core.cost import Linear, Roofline, StepShape
from millrace.core.cost.roofline import HOST_S
from millrace.core.fleet_spec import FleetGroup, parse_fleet
from millrace.core.profile import Setup
from millrace.data.profiles import open_serving

SERVING = Path(__file__).parents[2] / "data/profiles/serving/RTX4090/meta-llama/Llama-3.1-8B/bf16"
STEP = StepShape(decodes=8, decode_context_tokens=8000, emits=8)


def group(text: str = "rtx-4090 llama-3-8b") -> FleetGroup:
    return parse_fleet(text)[0]


def priced(path: Path, text: str = "rtx-4090 llama-3-8b") -> tuple[str, str, float]:
    one = group(text)
    found = price_of(one, calibration=None, profiles=parse_profiles([str(path)], [one]))
    return found.quality, found.source, found.cost.step_s(STEP)


def test_without_a_measurement_the_data_sheet_prices_and_says_so() -> None:
    found = price_of(group(), calibration=None, profiles=[])
    assert isinstance(found.cost, Roofline)
    assert (found.quality, found.source) == ("uncalibrated roofline", "data sheets")
    assert "attention 8 %" in found.expected_error


def test_an_overlap_is_priced_from_data_sheets_only() -> None:
    one = group("a100-80g llama-3-8b tp=2 overlap=tokenweave")
    found = price_of(one, calibration=None, profiles=[])
    assert (found.quality, found.source) == ("uncalibrated roofline", "data sheets, tokenweave")
    with pytest.raises(ValueError, match="leave out --profile"):
        price_of(one, calibration="cpu", profiles=[])


def test_a_shipped_calibration_of_the_very_model_and_device_is_taken() -> None:
    found = price_of(group("cpu demo"), calibration=None, profiles=[])
    assert found.quality == "calibrated"
    assert "95th percentile" in found.expected_error


def test_a_folder_of_operator_times_is_a_measured_grid() -> None:
    quality, source, step_s = priced(SERVING)
    assert quality == "measured grid"
    assert source == "meta-llama/Llama-3.1-8B on RTX4090, vLLM 0.19.0"
    assert step_s == pytest.approx(group().roofline.step_s(STEP), rel=0.1)


def test_a_profile_that_was_written_down_is_a_fitted_one(tmp_path: Path) -> None:
    setup = Setup(model=group().model, device=group().device)
    fit = open_serving(SERVING, group().model).fitted(setup)
    path = tmp_path / "fit.json"
    path.write_bytes(msgspec.json.encode(fit.to_dict()))
    assert priced(path) == ("fitted", str(path), fit.step_s(STEP))


def test_a_calibration_may_come_as_a_profile_too(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(msgspec.json.encode(Linear(base_s=0.5, source="my engine").to_dict()))
    assert priced(path) == ("calibrated", "my engine", 0.5)


def test_layers_of_vidur_are_measured_and_the_rest_is_not(tmp_path: Path) -> None:
    path = tmp_path / "mlp.csv"
    operators = ("mlp_up_proj", "mlp_down_proj", "mlp_act", "input_layernorm", "post_attention_layernorm")
    others = ("attn_pre_proj", "attn_post_proj", "attn_rope", "add")
    names = [f"time_stats.{name}.mean" for name in operators + others]
    rows = [f"{tokens},1,{','.join(['0.1'] * len(names))}" for tokens in (1, 64, 4096)]
    path.write_text("\n".join(["num_tokens,num_tensor_parallel_workers," + ",".join(names), *rows]))
    quality, source, step_s = priced(path, "a100-80g llama-3-8b")
    assert (quality, source) == ("measured layers", str(path))
    assert step_s > 0.02


def test_tables_of_aiconfigurator_are_taken_if_they_are_installed() -> None:
    if find_spec("aiconfigurator_core") and find_spec("pyarrow"):
        assert priced(Path("aiconfigurator"), "h100 llama-3-8b")[0] == "fitted"
    else:
        with pytest.raises(ValueError, match=r"pip install 'millrace\[aiconfigurator\]'"):
            priced(Path("aiconfigurator"), "h100 llama-3-8b")


def test_an_engine_that_does_not_plan_ahead_pays_for_its_host() -> None:
    late, ahead = (
        priced(SERVING, f"rtx-4090 llama-3-8b async_scheduling={word}")[2] for word in ("off", "on")
    )
    assert late - ahead == pytest.approx(HOST_S)


def test_the_most_particular_profile_wins(tmp_path: Path) -> None:
    for name, base_s in (("one", 1.0), ("two", 2.0)):
        (tmp_path / name).write_bytes(msgspec.json.encode(Linear(base_s=base_s).to_dict()))
    fleet = parse_fleet("h100 llama-3-8b, l40s llama-3-8b, l40s qwen3-8b")
    texts = [f"llama-3-8b={tmp_path / 'one'}", f"llama-3-8b@l40s={tmp_path / 'two'}"]
    profiles = parse_profiles(texts, fleet)
    found = [price_of(one, calibration=None, profiles=profiles).cost.step_s(STEP) for one in fleet]
    assert found[:2] == [1.0, 2.0]
    assert found[2] == fleet[2].roofline.step_s(STEP)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "--profile is empty; name a file or a folder"),
        ("gpt=x.json", "nothing in the fleet is gpt; there is llama-3-8b@h100, llama-3-8b@l40s"),
        ("llama-3-8b@cpu=x.json", "nothing in the fleet is llama-3-8b@cpu"),
        ("./a=b/x.json", "say whose prices these are, like --profile llama-3-8b@h100=a=b/x.json"),
    ],
)
def test_a_profile_that_is_nobodys_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_profiles([text], parse_fleet("h100 llama-3-8b, l40s llama-3-8b"))


@pytest.mark.parametrize(
    ("text", "problem"), [("no-such.json", "there is no file no-such.json"), (".", "meta.yaml")]
)
def test_a_path_without_prices_is_named(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        priced(tmp_path if text == "." else Path(text))
