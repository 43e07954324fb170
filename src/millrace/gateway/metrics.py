"""What the gateway counts, and Prometheus text of it.

Counting is an index and an addition; text is made on demand, a piece at a time, so that a scrape of a large
fleet never holds up a token. Names follow llm-d's router with the prefix `millrace_`. Labels are models the
engines serve, configured replicas and fixed words, so their number is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from millrace import __version__

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640)
_PER_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)
_OVERHEAD_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
_TOKENS = (1, 8, 32, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


class Family(Struct, frozen=True):
    """Values of one name on the metrics page, by label text."""

    name: str
    help: str
    type: str
    values: dict[str, float]


class Histogram:
    """Counts per bucket, not cumulated, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Series:
    """Everything measured of one model on one replica ("" before any replica was chosen)."""

    __slots__ = (
        "cached_tokens",
        "durations",
        "input_tokens",
        "itl",
        "labels",
        "output_tokens",
        "tpot",
        "ttft",
    )

    def __init__(self, model: str, replica: str) -> None:
        self.labels = f'model="{escaped(model)}",replica="{escaped(replica)}"'
        self.ttft = Histogram(_SECONDS)
        self.tpot = Histogram(_PER_TOKEN_SECONDS)
        self.itl = Histogram(_PER_TOKEN_SECONDS)
        self.input_tokens = Histogram(_TOKENS)
        self.output_tokens = Histogram(_TOKENS)
        self.cached_tokens = Histogram(_TOKENS)
        self.durations: dict[str, Histogram] = {}

    def end(self, outcome: str, seconds: float) -> None:
        """Count a request that ended this way after this long."""
        duration = self.durations.get(outcome)
        if duration is None:
            duration = self.durations[outcome] = Histogram(_SECONDS)
        duration.observe(seconds)

    def count_tokens(self, prompt: int | None, output: int | None, cached: int | None) -> None:
        """Count the tokens of one answer; None is unknown and not counted."""
        if prompt is not None:
            self.input_tokens.observe(prompt)
        if output is not None:
            self.output_tokens.observe(output)
        if cached is not None:
            self.cached_tokens.observe(cached)


_PER_SERIES = (
    ("request_ttft_seconds", "From the request's last byte to the first token's arrival", "ttft"),
    ("request_tpot_seconds", "Mean time per output token after the first", "tpot"),
    ("request_itl_seconds", "Time between two arrivals within a stream", "itl"),
    ("request_input_tokens", "Prompt tokens as engines counted them", "input_tokens"),
    ("request_output_tokens", "Output tokens as engines counted them", "output_tokens"),
    ("request_cached_tokens", "Prompt tokens that engines found in a cache", "cached_tokens"),
)


class Metrics:
    """All series, and the counters that belong to none."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}
        self.errors: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.retries: Counter[str] = Counter()
        self.aborted: Counter[str] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self.resumed: Counter[str] = Counter()
        self.moves: Counter[str] = Counter()
        self.tokenized: Counter[str] = Counter()
        self.shadowed: Counter[tuple[str, str]] = Counter()
        self.kv_batches: dict[str, Counter[str]] = {}
        self.kv_ignored: dict[str, Counter[str]] = {}
        self.overhead = Histogram(_OVERHEAD_SECONDS)
        self.further: Callable[[], Iterable[Family]] = tuple
        self.client_retries = 0
        self.unfinished_streams = 0
        self.loop_lag_s = 0.0

    def series(self, model: str, replica: str = "") -> Series:
        """Return the series of a model on a replica; callers keep it for the length of a request."""
        found = self._series.get((model, replica))
        if found is None:
            found = self._series[model, replica] = Series(model, replica)
        return found

    def pieces(self, gauges: Iterable[tuple[str, str, dict[str, float]]]) -> Iterator[str]:
        """Yield the exposition in small pieces. `gauges` are names, help texts and values by label text."""
        yield _family("build_info", "The running version", "gauge", {f'version="{__version__}"': 1.0})
        yield from self._requests()
        for name, help_, attribute in _PER_SERIES:
            yield _heading(name, help_, "histogram")
            for series in list(self._series.values()):
                if any(getattr(series, attribute).counts):
                    yield _histogram(name, series.labels, getattr(series, attribute))
        yield _heading("gateway_overhead_seconds", "From a request's last byte to its dispatch", "histogram")
        yield _histogram("gateway_overhead_seconds", "", self.overhead)
        yield from self._counters()
        for family in self.further():
            yield _family(family.name, family.help, family.type, family.values)
        for name, help_, values in gauges:
            yield _family(name, help_, "gauge", values)

    def _requests(self) -> Iterator[str]:
        ended = [
            (f'{series.labels},outcome="{outcome}"', duration)
            for series in self._series.values()
            for outcome, duration in series.durations.items()
        ]
        totals = {labels: float(sum(duration.counts)) for labels, duration in ended}
        yield _family("request_total", "Requests that ended", "counter", totals)
        yield _heading("request_duration_seconds", "From the request's last byte to its end", "histogram")
        for labels, duration in ended:
            yield _histogram("request_duration_seconds", labels, duration)

    def _counters(self) -> Iterator[str]:
        errors = {f'model="{escaped(m)}",error_code="{c}"': float(n) for (m, c), n in self.errors.items()}
        yield _family("request_error_total", "Errors answered to clients", "counter", errors)
        dropped = {f'model="{escaped(m)}",reason="{r}"': float(n) for (m, r), n in self.dropped.items()}
        yield _family("flow_control_dropped_total", "Requests given up while held", "counter", dropped)
        yield _family(
            "retry_total", "Attempts made because one before failed", "counter", _by("reason", self.retries)
        )
        turned = _by("model", self.fallbacks)
        yield _family(
            "fallback_total", "Times a request turned to this model from another", "counter", turned
        )
        resumed = _by("how", self.resumed)
        yield _family("stream_resumed_total", "Streams taken on where their engine broke", "counter", resumed)
        moves = _by("how", self.moves)
        yield _family("stream_moved_total", "Streams that were to move while they ran", "counter", moves)
        yield _family("stream_aborted_total", "Answers cut short", "counter", _by("side", self.aborted))
        again = {"": float(self.client_retries)}
        yield _family("client_retry_total", "Requests that an SDK says it sends again", "counter", again)
        unfinished = {"": float(self.unfinished_streams)}
        yield _family(
            "stream_unfinished_total", "Streams an engine ended without end mark", "counter", unfinished
        )
        shadowed = {
            f'policy="{escaped(policy)}",agreement="{how}"': float(count)
            for (policy, how), count in self.shadowed.items()
        }
        yield _family("shadow_decision_total", "What shadows made of decisions", "counter", shadowed)
        asked = _by("outcome", self.tokenized)
        yield _family("prefix_tokens_total", "Prompts whose tokens were to be found", "counter", asked)
        batches = _by_replica("outcome", self.kv_batches)
        yield _family("kv_event_batches_total", "Batches of KV events", "counter", batches)
        ignored = _by_replica("reason", self.kv_ignored)
        yield _family("kv_events_ignored_total", "KV events that were left out", "counter", ignored)
        yield _family("event_loop_lag_seconds", "How late the last sweep was", "gauge", {"": self.loop_lag_s})


def outcome_of(status: int) -> str:
    """Return how a request ended that an engine answered with this status."""
    if status < 400:
        return "ok"
    return "client_error" if status < 500 else "engine_error"


def labels(**values: str) -> str:
    """Return the label text of these values."""
    return ",".join(f'{label}="{escaped(value)}"' for label, value in values.items())


def _by(label: str, counter: Counter[str]) -> dict[str, float]:
    return {f'{label}="{escaped(value)}"': float(count) for value, count in counter.items()}


def _by_replica(label: str, counters: dict[str, Counter[str]]) -> dict[str, float]:
    return {
        f'replica="{escaped(replica)}",{label}="{escaped(value)}"': float(count)
        for replica, counter in counters.items()
        for value, count in counter.items()
    }


def _heading(name: str, help_: str, type_: str) -> str:
    return f"# HELP millrace_{name} {help_}\n# TYPE millrace_{name} {type_}\n"


def _family(name: str, help_: str, type_: str, values: dict[str, float]) -> str:
    lines = [f"millrace_{name}{{{labels}}} {value!r}\n" for labels, value in values.items()]
    return _heading(name, help_, type_) + "".join(lines)


def _histogram(name: str, labels: str, histogram: Histogram) -> str:
    comma = "," if labels else ""
    lines, count = [], 0
    for bound, some in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        count += some
        lines.append(f'millrace_{name}_bucket{{{labels}{comma}le="{bound}"}} {count}\n')
    lines.append(f"millrace_{name}_sum{{{labels}}} {histogram.total!r}\n")
    lines.append(f"millrace_{name}_count{{{labels}}} {count}\n")
    return "".join(lines)


def escaped(value: str) -> str:
    """Return a label's value as the text format has it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
