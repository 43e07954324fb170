"""What `serve` and `simulate` make of the wording of requests: predictions, and numbers to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from millrace.cli.output import say
from millrace.gateway import Wording
from millrace.predictor import Predictor, read_document
from millrace.simulate import Job

PREDICTING = "How long answers will be"

PredictorFile = Annotated[
    Path | None,
    typer.Option(
        "--predictor",
        metavar="FILE",
        help="Predict the length of answers, as learned by `millrace train-predictor`.",
        rich_help_panel=PREDICTING,
    ),
]
LogFeatures = Annotated[
    bool,
    typer.Option(
        "--log-features",
        help="Keep 19 numbers on the wording of requests in the event log, for `millrace train-predictor`.",
        rich_help_panel=PREDICTING,
    ),
]
Serial = Annotated[
    bool,
    typer.Option(
        "--serial",
        help="Each engine answers one request at a time: hold the others here, the shortest answers first.",
        rich_help_panel=PREDICTING,
    ),
]
PATIENT_S = 600.0
"""How long a request may wait for an engine that answers one at a time."""


def with_serial(context: typer.Context) -> dict[str, Any]:
    """Return the options; under `--serial` some that nobody said are others than usual.

    The usual limit on overtaking would cut the policy's own patience short, so it goes by that alone.
    """
    said = dict(context.params)
    if not said["serial"]:
        return said
    usual = {"queueing": "clairvoyant", "max_hold": PATIENT_S}
    unsaid = {name for name in usual if str(context.get_parameter_source(name)).endswith("DEFAULT")}
    changed = {name: value for name, value in usual.items() if name in unsaid}
    rules = list(said["queue_rule"] or ())
    if not any("starvation" in rule for rule in rules):
        rules.append("starvation=inf")
    return said | changed | {"queue_rule": rules}


def predicted(jobs: Iterable[Job], predictor: str | None) -> Iterator[Job]:
    """Let simulated requests whose wording is known carry what a predictor makes of it."""
    if predictor is None:
        yield from jobs
        return
    predict = Predictor(read_document(Path(predictor)))
    for job in jobs:
        said = job.request.lexical
        yield replace(job, request=replace(job.request, predicted=predict(said))) if said else job


def wording_of(said: Mapping[str, Any]) -> Wording | None:
    """Return what reads the requests' wording for these options, None if nobody has to.

    Without its file a gateway serves on, with a warning. Raises ValueError for a file that is no predictor.
    """
    path, kept = said["predictor"], said["log_features"]
    if path is None:
        return Wording(kept=True) if kept else None
    if not path.is_file():
        say(f"warning: there is no predictor {path}; requests are served as if nothing were predicted")
        return Wording(kept=True) if kept else None
    return Wording(Predictor(read_document(path)), kept=kept)
