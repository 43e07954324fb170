"""Sending short answers first, as predicted from wording, lowers the P50 of short requests by 70 to 76 % in a
crowd of 100 at a serial engine, and by 17 % in a steady state at 0.74 of its capacity.

The instructions are made up: phrases, and answers as long as the wording says, times lognormal luck of 0.8.
What is learned from them shows that the pipeline works, not how predictable people are. A predictor is
trained on 2,000 of them and judged on the last fifth. Live: 100 others come at once to an engine of this
machine that runs one at a time, behind `millrace serve --serial`, first come first served and by the
predictor; answers have a fortieth of the tokens, and are made that long. A request's bound is what those that
came before it took, the patience, which is half of what first come first served took, and the longest answer.
Simulated: 3,000 others at 0.74 of the capacity of an engine of 30 tokens/s; the paper's 17 %, printed beside
it, is of another engine and other prompts. Then the same with a predictor that learned from shuffled answers,
with one that learned the opposite of what comes, and with none: the mean latency and its P99 must not be more
than 5 % above first come first served.

Source: Sundaresan, Clairvoyant: Predictive SJF Scheduling to Mitigate Head-of-Line Blocking in Serial LLM
Backends, arXiv:2606.07248.
"""

from __future__ import annotations

import asyncio
from itertools import accumulate
from math import log
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from timeit import repeat

from msgspec.structs import replace

from millrace.claims import Check, Kind
from millrace.claims.live.crowd import Answered, crowd
from millrace.control import Controller, ControlSettings
from millrace.core.answer_length import BOUNDS, class_of
from millrace.core.cost import Linear
from millrace.core.draw import draw
from millrace.core.lexical import lexical
from millrace.core.outcome import Outcome
from millrace.core.replica import Limits, ReplicaSpec
from millrace.core.request import Slo
from millrace.core.stats import percentile
from millrace.core.synthetic.instructions import Instruction, instructions
from millrace.core.trace import TraceRecord
from millrace.gateway.wording import Predict
from millrace.policies import load
from millrace.predictor import Document, Predictor, write_document
from millrace.predictor.training import Training, missing, train
from millrace.simulate import ServerSpec, jobs_of, simulate

KIND: Kind = "live"
LUCK = 0.8
LIVE_DIVISOR = 40
LIVE_BOUNDS = (BOUNDS[0] // LIVE_DIVISOR, BOUNDS[1] // LIVE_DIVISOR)
CROWD = 100
STEADY = 3000
LOAD = 0.74
TOKENS_PER_S = 30.0


def measure() -> list[Check]:
    """Train, ask a real engine 200 times, and simulate five steady states."""
    if lacking := missing():
        raise ValueError(f"{lacking[0]} is not installed: pip install 'millrace[predictor]'")
    made = trained(logged(2000, seed=1))
    return [*_learned(made), *_live(), *_steady(made)]


def logged(count: int, *, seed: int, divisor: int = 1) -> list[TraceRecord]:
    """Return what a log would keep of made-up instructions, one a second."""
    return [
        TraceRecord(
            id=f"i{seed}-{number}",
            t_s=float(number),
            input_tokens=max(1, len(made.text) // 4),
            output_tokens=max(1, made.answer_tokens // divisor),
            lexical=lexical(made.text),
        )
        for number, made in enumerate(instructions(count, seed=seed, luck=LUCK))
    ]


def trained(records: list[TraceRecord], bounds: tuple[int, int] = BOUNDS) -> Document:
    """Learn from a log."""
    return train(records, Training(bounds=bounds))


def _learned(made: Document) -> list[Check]:
    quality = made.quality
    return [
        Check(
            what="held out, pairs in order",
            value=100 * quality.pairs_in_order,
            unit="%",
            at_least=62,
            steady=False,
        ),
        Check(what="held out, likeliest class true", value=100 * quality.accuracy, unit="%", steady=False),
        Check(what="held out, rank correlation", value=quality.rank_correlation, steady=False),
        Check(
            what="held out, true class among the predicted, promised 90%",
            value=100 * quality.coverage,
            unit="%",
            at_least=85,
            steady=False,
        ),
        Check(what="classes in a prediction", value=quality.classes_per_answer, steady=False),
        Check(
            what="time of a prediction, from its text",
            value=1e6 * prediction_s(Predictor(made)),
            unit=" us",
            at_most=60,
            steady=False,
        ),
    ]


def prediction_s(predict: Predict, texts: int = 200) -> float:
    """Return the mean time from a text to its prediction, in the best of many rounds."""
    asked = [made.text for made in instructions(texts, seed=3)]
    rounds = repeat(lambda: [predict(lexical(text)) for text in asked], number=1, repeat=50)
    return min(rounds) / texts


def _live() -> list[Check]:
    made = trained(logged(2000, seed=1, divisor=LIVE_DIVISOR), LIVE_BOUNDS)
    asked = [_shortened(one) for one in instructions(CROWD, seed=2, luck=LUCK)]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "predictor.json"
        write_document(made, file)
        plain, sooner, patience_s = asyncio.run(crowd(asked, file, Path(folder)))
    before, after = (_short_s(found) for found in (plain, sooner))
    bounds = bounds_s(sooner, patience_s)
    beyond_s = max(one.waited_s - bound for one, bound in zip(sooner, bounds, strict=True))
    due = sum(one.waited_s >= patience_s for one in sooner)
    return [
        Check(what="live, answered of 200", value=len(plain) + len(sooner), at_least=2 * CROWD),
        Check(
            what="live, P50 of short requests, saved",
            value=100 * (1 - after / before),
            unit="%",
            at_least=60,
            steady=False,
        ),
        Check(what="live, P50 of short requests, first come", value=before, unit=" s", steady=False),
        Check(what="live, P50 of short requests, predicted", value=after, unit=" s", steady=False),
        Check(what="live, waited as long as patience lasts", value=due, steady=False),
        Check(what="live, longest wait beyond its bound", value=beyond_s, unit=" s", at_most=0, steady=False),
    ]


def _shortened(one: Instruction) -> Instruction:
    return Instruction(one.text, max(1, one.answer_tokens // LIVE_DIVISOR))


def _short_s(found: list[Answered]) -> float:
    return median(one.latency_s for one in found if class_of(one.tokens, LIVE_BOUNDS) == 0)


def bounds_s(found: list[Answered], patience_s: float) -> list[float]:
    """Return how long each may wait, in order of arrival: for those before it, patience, and one answer."""
    before = [0.0, *accumulate(one.served_s for one in found)]
    longest = max(one.served_s for one in found)
    return [ahead + patience_s + longest for ahead in before[: len(found)]]


def _steady(made: Document) -> list[Check]:
    records = poisson(logged(STEADY, seed=2))
    plain = serial(records, "fcfs", None)
    ordered = serial(records, "clairvoyant", Predictor(made))
    short = [one.id for one in records if class_of(one.output_tokens) == 0]
    saved = 1 - _p50_s(ordered, short) / _p50_s(plain, short)
    return [
        Check(
            what="steady at 0.74, P50 of short requests, saved",
            value=100 * saved,
            unit="%",
            at_least=17,
            steady=False,
        ),
        Check(what="the paper's", value=17, unit="%"),
        Check(
            what="steady, mean of all, over first come",
            value=_over(ordered, plain),
            unit="x",
            at_most=1.0,
            steady=False,
        ),
        *_degraded(records, plain),
    ]


def _degraded(records: list[TraceRecord], plain: dict[str, Outcome]) -> list[Check]:
    """Simulate predictors that are worth nothing, or less."""
    learned = logged(2000, seed=1)
    shuffled, opposite = Predictor(trained(shuffle(learned))), Predictor(trained(turned(learned)))
    kinds = (("shuffled", shuffled), ("opposite", opposite), ("missing", None))
    checks = []
    for name, predict in kinds:
        found = serial(records, "clairvoyant", predict)
        mean, tail = _over(found, plain), _tail_s(found) / _tail_s(plain)
        checks.append(
            Check(what=f"{name}, mean over first come", value=mean, unit="x", at_most=1.05, steady=False)
        )
        checks.append(
            Check(what=f"{name}, P99 over first come", value=tail, unit="x", at_most=1.05, steady=False)
        )
    return checks


def shuffle(records: list[TraceRecord]) -> list[TraceRecord]:
    """Give every request another one's answer."""
    lengths = sorted((draw("shuffle", one.id), one.output_tokens) for one in records)
    return [replace(one, output_tokens=tokens) for one, (_, tokens) in zip(records, lengths, strict=True)]


def turned(records: list[TraceRecord]) -> list[TraceRecord]:
    """Give the longest answer to whoever had the shortest, and so on."""
    rising = sorted(records, key=lambda one: (one.output_tokens, one.id))
    other = {one.id: twin.output_tokens for one, twin in zip(rising, reversed(rising), strict=True)}
    return [replace(one, output_tokens=other[one.id]) for one in records]


def poisson(records: list[TraceRecord], load: float = LOAD) -> list[TraceRecord]:
    """Let the records come with exponential gaps, at this share of what the engine can do."""
    mean_s = sum(one.output_tokens for one in records) / len(records) / TOKENS_PER_S
    gaps = (-log((draw("gap", one.id) + 1) / (2**64 + 1)) * mean_s / load for one in records)
    return [replace(one, t_s=t_s) for one, t_s in zip(records, accumulate(gaps), strict=True)]


def serial(records: list[TraceRecord], queueing: str, predict: Predict | None) -> dict[str, Outcome]:
    """Simulate an engine that answers one request at a time; return what became of each request."""
    jobs = [
        replace(job, request=replace(job.request, predicted=predict and predict(job.request.lexical)))
        for job in jobs_of(records, "m", Slo())
    ]
    limits = Limits(sequences=1, prefix_caching=False)
    engine = ServerSpec(
        id="serial", spec=ReplicaSpec(models=("m",), limits=limits), cost=Linear(base_s=1 / TOKENS_PER_S)
    )
    settings = ControlSettings(max_in_flight=1, max_held=len(records), max_hold_s=1e9)
    controller = Controller(load("routing", "least_request"), load("queueing", queueing), settings)
    found = simulate(jobs, [engine], controller, load("batching", "split_fuse"))
    return {one.id: one for one in found.outcomes}


def _latencies_s(found: dict[str, Outcome]) -> list[float]:
    return [one.e2e_s for one in found.values() if one.e2e_s is not None]


def _p50_s(found: dict[str, Outcome], ids: list[str]) -> float:
    return percentile(_latencies_s({name: found[name] for name in ids}), 50)


def _tail_s(found: dict[str, Outcome]) -> float:
    return percentile(_latencies_s(found), 99)


def _over(found: dict[str, Outcome], plain: dict[str, Outcome]) -> float:
    """Return the mean latency over that of another order."""
    return sum(_latencies_s(found)) / sum(_latencies_s(plain))
