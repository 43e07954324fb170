"""What an engine reports of itself at `/metrics`, in vLLM's names and types: dashboards and routers fit."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from millrace.replica.replica import Replica
from millrace.replica.sequence import Sequence

LABELS = ("model_name", "engine")
TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
ITL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
E2E_S = (0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)


class Metrics:
    """Counts and latencies of one engine, and the state of its replica whenever somebody asks."""

    def __init__(self, replica: Replica, model: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ReplicaState(replica, (model, "0")))
        self._labels = (model, "0")
        self._ttft = self._histogram("time_to_first_token", "From arrival to the first token.", TTFT_S)
        self._itl = self._histogram("inter_token_latency", "From one token to the next.", ITL_S)
        self._e2e = self._histogram("e2e_request_latency", "From arrival to the last token.", E2E_S)
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of requests that got a token.")
        self._generated = self._counter("generation_tokens", "Tokens generated.")
        ends = self._counter("request_success", "Requests by how they ended.", "finished_reason")
        self._ends = {why: ends.labels(*self._labels, why) for why in ("stop", "length", "abort")}

    def first_token(self, sequence: Sequence, ttft_s: float) -> None:
        """A sequence got its first token."""
        self._prompt.inc(sequence.prompt_tokens)
        self._generated.inc()
        self._ttft.observe(ttft_s)

    def next_token(self, latency_s: float) -> None:
        """A sequence got another token, that much later than the one before."""
        self._generated.inc()
        self._itl.observe(latency_s)

    def finished(self, why: str, latency_s: float) -> None:
        """A sequence ended: "stop", "length", or "abort"."""
        self._ends[why].inc()
        self._e2e.observe(latency_s)

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        whole = Histogram(f"vllm:{name}_seconds", help, LABELS, buckets=buckets, registry=self._registry)
        return whole.labels(*self._labels)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        whole = Counter(f"vllm:{name}", help, (*LABELS, *labels), registry=self._registry)
        return whole if labels else whole.labels(*self._labels)


class _ReplicaState(Collector):
    """What the replica knows itself, read when it is asked for."""

    def __init__(self, replica: Replica, labels: tuple[str, ...]) -> None:
        self._replica, self._labels = replica, labels

    def collect(self) -> Iterable[Metric]:
        replica, limits = self._replica, self._replica.limits
        used = 1 - replica.kv_free_tokens / (limits.kv_blocks * limits.block_tokens)
        yield self._gauge("num_requests_running", "Sequences with KV blocks.", len(replica.running))
        yield self._gauge("num_requests_waiting", "Sequences without.", len(replica.waiting))
        yield self._gauge("kv_cache_usage_perc", "Share of the KV blocks that are held (0 to 1).", used)
        yield self._counter("num_preemptions", "Times a sequence lost its KV blocks.", replica.preemptions)
        yield self._counter("prefix_cache_queries", "Prompt tokens looked up.", replica.cache_query_tokens)
        yield self._counter("prefix_cache_hits", "Prompt tokens found.", replica.cache_hit_tokens)
        yield self._cache_config()

    def _gauge(self, name: str, help: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", help, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _counter(self, name: str, help: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", help, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _cache_config(self) -> Metric:
        limits = self._replica.limits
        facts = {
            "block_size": str(limits.block_tokens),
            "num_gpu_blocks": str(limits.kv_blocks),
            "enable_prefix_caching": str(limits.prefix_caching),
            "engine": self._labels[1],
        }
        family = GaugeMetricFamily("vllm:cache_config_info", "The KV cache's settings.", labels=list(facts))
        family.add_metric(list(facts.values()), 1)
        return family
