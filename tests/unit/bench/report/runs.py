"""Small runs and reports for tests of the report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

from millrace.bench.report import Origin, PolicyRuns, Run, RunReport
from millrace.bench.report.page import page
from millrace.core.outcome import Outcome, measure
from millrace.core.request import Slo

SLO = Slo(ttft_s=0.5, tpot_s=0.05)


def outcome(number: int = 0, **fields: Any) -> Outcome:
    """A completed request, due each half second: a first token after 0.1 s, the tenth after 0.28 s."""
    due_s = number / 2
    usual = {
        "id": f"r{number}",
        "scheduled_s": due_s,
        "status": "completed",
        "prompt_tokens": 100,
        "output_tokens": 10,
        "cached_tokens": 20,
        "replica": f"engine-{number % 2}",
        "first_token_s": due_s + 0.1,
        "finished_s": due_s + 0.28,
    }
    return Outcome(**{**usual, **fields})


def refused(number: int = 0) -> Outcome:
    """A request that was turned away at once."""
    error = "http 503: the queue is full"
    return Outcome(
        id=f"r{number}",
        scheduled_s=number / 2,
        status="refused",
        prompt_tokens=100,
        finished_s=number / 2 + 0.01,
        error=error,
    )


def run(outcomes: Iterable[Outcome] = (), **fields: Any) -> Run:
    """A run of these outcomes, or of 120 usual ones."""
    known = list(outcomes) or [outcome(number) for number in range(120)]
    return Run(measured=measure(known, SLO), outcomes=known, **fields)


def report(*policies: PolicyRuns, **fields: Any) -> RunReport:
    """A report on these policies, or on one that ran in both worlds."""
    usual = {
        "title": "A test",
        "slo": SLO,
        "seed": 7,
        "config": {"engines": 3, "trace": "azure_conv_2023"},
        "origin": Origin(
            command="millrace demo --seed 7",
            created="2026-01-02T03:04:05+00:00",
            versions={"millrace": "0.1.0"},
            host={"processor": "a fast one"},
        ),
        "policies": list(policies) or [PolicyRuns(name="round_robin", live=run(), simulated=run())],
    }
    return RunReport(**{**usual, **fields})


def parsed(made: RunReport) -> ElementTree.Element:
    """The report's page as a tree; raises if any element is not closed or anything not escaped."""
    return ElementTree.fromstring(page(made).removeprefix("<!doctype html>"))


def text_of(element: ElementTree.Element) -> str:
    """All text within an element, with plain spaces."""
    return " ".join(" ".join(element.itertext()).replace("\u00a0", " ").split())
