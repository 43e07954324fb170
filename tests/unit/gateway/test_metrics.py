"""The metrics page, read by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from millrace.gateway.metrics import Histogram, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse the page."""
    page = "".join(metrics.pieces([("request_running", "help", {'replica="a"': 2.0})]))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_a_histogram_counts_each_value_once_and_bounds_are_inclusive() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 9):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1]
    assert histogram.total == 12


def test_what_was_counted_is_on_the_page() -> None:
    metrics = Metrics()
    series = metrics.series("m", "a")
    series.end("ok", 0.3)
    series.end("ok", 0.4)
    series.ttft.observe(0.07)
    series.count_tokens(100, 7, None)
    metrics.errors["m", "404"] += 1
    metrics.retries["reset"] += 2
    page = samples(metrics)
    labels = frozenset({("model", "m"), ("replica", "a")})
    assert page["millrace_request_total", labels | {("outcome", "ok")}] == 2
    assert page["millrace_request_duration_seconds_sum", labels | {("outcome", "ok")}] == 0.7
    assert page["millrace_request_ttft_seconds_bucket", labels | {("le", "0.1")}] == 1
    assert page["millrace_request_ttft_seconds_bucket", labels | {("le", "0.05")}] == 0
    assert page["millrace_request_output_tokens_sum", labels] == 7
    assert ("millrace_request_cached_tokens_count", labels) not in page
    assert page["millrace_request_error_total", frozenset({("model", "m"), ("error_code", "404")})] == 1
    assert page["millrace_retry_total", frozenset({("reason", "reset")})] == 2
    assert page["millrace_request_running", frozenset({("replica", "a")})] == 2


def test_names_that_need_it_are_escaped() -> None:
    metrics = Metrics()
    metrics.series('a"b\\c\nd').end("ok", 1.0)
    labels = frozenset({("model", 'a"b\\c\nd'), ("replica", ""), ("outcome", "ok")})
    assert samples(metrics)["millrace_request_total", labels] == 1


def test_the_page_names_the_version_before_anything_happened() -> None:
    page = samples(Metrics())
    assert any(name == "millrace_build_info" for name, _ in page)
    assert page["millrace_gateway_overhead_seconds_count", frozenset()] == 0
