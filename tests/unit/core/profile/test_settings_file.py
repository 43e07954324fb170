from __future__ import annotations

import pytest

from millrace.core.profile.settings_file import read_settings

TEXT = """\
# what was measured
vllm_version: 0.19.0
cuda_version: '12.8'
gpu: NVIDIA GeForce RTX 4090

measured: "2026-08-17T19:43:32+00:00"
skew_fit:
  enabled: true
  bins: [0, 2, 1000000]
  labels: [n<=2, 'n>2']
  none: []
  per_tp:
    1:
      default: 0.05
    '2':
      default: 0.06
after: it
"""


def test_mappings_nest_by_indentation_and_scalars_stay_text() -> None:
    assert read_settings(TEXT.splitlines(keepends=True)) == {
        "vllm_version": "0.19.0",
        "cuda_version": "12.8",
        "gpu": "NVIDIA GeForce RTX 4090",
        "measured": "2026-08-17T19:43:32+00:00",
        "skew_fit": {
            "enabled": "true",
            "bins": ["0", "2", "1000000"],
            "labels": ["n<=2", "n>2"],
            "none": [],
            "per_tp": {"1": {"default": "0.05"}, "2": {"default": "0.06"}},
        },
        "after": "it",
    }


@pytest.mark.parametrize("line", ["- item", "just words", "{a: 1}", "'unclosed: 1"])
def test_more_of_yaml_than_this_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: cannot read .*; write 'name: value'"):
        read_settings(["a: 1", line])
