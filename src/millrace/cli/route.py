"""`millrace route`: why requests went where they did, what others would have done, and who foresaw it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from msgspec.structs import asdict

from millrace.cli import explaining
from millrace.cli import route_options as options
from millrace.cli.options import names_of, read, slo_of
from millrace.cli.output import put_json, put_table, say
from millrace.control.hindsight import (
    Answer,
    Compared,
    Question,
    compare,
    explain_asked,
    explain_logged,
    report,
)
from millrace.control.log import LogError
from millrace.policies import load

app = typer.Typer(help="See why requests went where they did, from an event log.", no_args_is_help=True)


@app.command("explain")
def explain(
    *,
    log: options.Log,
    request: options.Logged = None,
    attempt: options.Attempt = 1,
    policy: options.Instead = None,
    at: options.At = None,
    prompt_tokens: options.PromptTokens = None,
    prefix_of: options.PrefixOf = None,
    prefix_tokens: options.PrefixTokens = None,
    model: options.Model = None,
    adapter: options.Adapter = None,
    session: options.Session = None,
    slo: options.Objective = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what the policy weighed when it sent a request: every candidate's terms, and why one won."""
    if (request is None) == (at is None):
        raise ValueError("say which decision: --request ID for one of the log, or --at SECONDS for a new one")
    asked = None if policy is None else load("routing", policy)
    objective = read("--slo", slo_of, slo)
    question = Question(
        model=model,
        prompt_tokens=prompt_tokens,
        prefix_of=prefix_of,
        prefix_tokens=prefix_tokens,
        adapter=adapter,
        session=session,
        slo_ttft_s=None if objective is None else objective.ttft_s,
    )
    with _lines(log) as lines:
        if at is not None:
            answer = explain_asked(lines, question, at, policy=asked)
        else:
            answer = explain_logged(lines, str(request), attempt=attempt, policy=asked)
    _warn(log, answer.first_difference)
    _show(answer, as_json)


@app.command("shadow")
def shadow(
    *,
    log: options.Log,
    policy: options.Shadows,
    as_json: options.AsJson = False,
) -> None:
    """Ask other policies at each decision of a log: how often they disagree, and what that would gain."""
    with _lines(log) as lines:
        told, compared = compare(lines, shadows(policy))
    _warn(log, told.first_difference)
    if as_json:
        put_json({"schema": "millrace.shadow/1", "shadows": as_objects(compared)})
        return
    put_table(explaining.disagreements(compared))
    put_table(explaining.swaps(compared))


@app.command("report")
def hold_against(*, log: options.Log, as_json: options.AsJson = False) -> None:
    """Compare, by replica, when first tokens were predicted with when they came."""
    with _lines(log) as lines:
        found = report(lines)
    _warn(log, found.first_difference)
    if as_json:
        put_json({"schema": "millrace.predictions/1", **asdict(found)})
        return
    if found.by_policy:
        put_table(explaining.errors(f"predicted by {found.policy.policy}", found.by_policy))
    put_table(explaining.errors("predicted by the forecast", found.by_forecast))


def shadows(text: str) -> dict[str, Any]:
    """Build the routing policies of a list by their names. Raises what `load` does, and for an empty list."""
    policies = {name: load("routing", name) for name in names_of(text)}
    if not policies:
        raise ValueError("no shadow is named; name a routing policy, like least_work")
    return policies


def as_objects(compared: list[Compared]) -> list[dict[str, Any]]:
    """Return what JSON shows of comparisons: their shares too."""
    return [
        asdict(one) | {"disagreement": one.disagreement, "mean_gain_s": one.mean_gain_s} for one in compared
    ]


def _show(answer: Answer, as_json: bool) -> None:
    if as_json:
        put_json({"schema": "millrace.explanation/1", **asdict(answer)})
        return
    for sentence in explaining.sentences(answer):
        typer.echo(sentence)
    put_table(explaining.weighed(answer))


@contextmanager
def _lines(log: Path) -> Iterator[Iterator[bytes]]:
    """Open a log; an error in it names it."""
    try:
        with log.open("rb") as lines:
            yield lines
    except LogError as error:
        raise ValueError(f"{log}: {error}") from None


def _warn(log: Path, first_difference: int | None) -> None:
    if first_difference is not None:
        say(f"{log}: told again, decisions differ from those on record from line {first_difference} on")
