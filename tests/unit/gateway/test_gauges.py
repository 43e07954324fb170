"""An engine's load, read from its metrics page."""

from __future__ import annotations

from millrace.core.replica import Report
from millrace.gateway.gauges import read_report

PAGE = b"""# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} 7"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0 1700000000000
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="1000"} 1.0
"""

LLAMA_CPP_PAGE = b"""# HELP llamacpp:predicted_tokens_seconds Average generation throughput in tokens/s
# TYPE llamacpp:predicted_tokens_seconds gauge
llamacpp:predicted_tokens_seconds 128.231
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# HELP llamacpp:requests_deferred Number of requests deferred
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 6
# HELP llamacpp:n_busy_slots_per_decode Average number of busy slots per llama_decode() call
# TYPE llamacpp:n_busy_slots_per_decode gauge
llamacpp:n_busy_slots_per_decode 1
"""


def test_the_load_of_all_ranks_is_summed_up() -> None:
    assert read_report(PAGE, 5.0) == Report(now_s=5.0, running=5, waiting=4, kv_free_tokens=12000)


def test_older_names_are_read_too() -> None:
    old = PAGE.replace(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc")
    assert read_report(old, 5.0).kv_free_tokens == 12000


def test_llama_cpp_says_how_busy_its_slots_are_but_nothing_of_its_cache() -> None:
    assert read_report(LLAMA_CPP_PAGE, 5.0) == Report(now_s=5.0, running=4, waiting=6)


def test_what_is_not_said_is_unknown_and_never_zero() -> None:
    assert read_report(b"", 5.0) == Report(now_s=5.0)
    assert read_report(b"vllm:kv_cache_usage_perc 0.5\n", 5.0).kv_free_tokens is None


def test_a_first_line_and_a_last_line_without_end_count() -> None:
    assert read_report(b"vllm:num_requests_running 1\nvllm:num_requests_waiting 2", 0.0) == Report(
        now_s=0.0, running=1, waiting=2
    )


def test_unusable_values_are_passed_over() -> None:
    page = b"vllm:num_requests_running NaN\nvllm:num_requests_running \nvllm:num_requests_waiting{ x\n"
    assert read_report(page, 0.0) == Report(now_s=0.0)
