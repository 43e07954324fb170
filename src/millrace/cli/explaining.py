"""Tables of decisions: what was weighed, what others would have done, and how far predictions were off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from millrace.cli.output import columns
from millrace.cli.simulating.results import laid_out
from millrace.control.hindsight import Answer, Candidate, Compared, Errors
from millrace.core.fleet import Route

MOST_SWAPS = 10
BOOKS = ("forecast", "cached", "waiting", "running", "queued")


def sentences(answer: Answer) -> Iterable[str]:
    """Say who decided what, and what came of it."""
    asked = f"{answer.request_id}, {answer.prompt_tokens} prompt tokens for {answer.model}"
    yield f"at {answer.now_s:.3f} s, {asked}"
    decision, name = answer.decision, answer.policy.policy
    if not isinstance(decision, Route):
        yield f"{name} does not send it: {decision.why}"
        return
    apart = f", its prompt to {decision.prefill_on}" if decision.prefill_on else ""
    yield f"{name} sends it to {decision.replica}{apart}{f': {decision.why}' if decision.why else ''}"
    yield _by(answer)
    if answer.sent_to not in (None, decision.replica):
        yield f"it was sent to {answer.sent_to}"
    if answer.ttft_s is not None:
        yield f"its first token came after {answer.ttft_s:.3f} s"


def _by(answer: Answer) -> str:
    if not answer.by:
        return "this policy cannot tell what it weighed; the forecast is the project's own"
    equals = sum(one.place == 1 for one in answer.candidates)
    drawn = f"; drawn from {equals} that are equal" if equals > 1 else ""
    return f"total: {answer.by}{drawn}"


def weighed(answer: Answer) -> Table:
    """Show every candidate, the chosen one with an arrow."""
    terms = list(dict.fromkeys(name for one in answer.candidates for name in one.terms))
    own = ["total", *terms] if answer.by else []
    predicts = any(one.ttft_s is not None for one in answer.candidates)
    heads = [*own, *(["first token"] if predicts else []), *BOOKS]
    chosen = answer.decision.replica if isinstance(answer.decision, Route) else None
    rows = []
    for one in answer.candidates:
        cells = _own(one, terms) if answer.by else []
        cells += [_seconds(one.ttft_s)] if predicts else []
        cells += [_seconds(one.foreseen_s), str(one.cached_tokens), str(one.waiting), str(one.running)]
        mark = "→" if one.replica == chosen else " "
        rows.append([f"{mark} {one.replica}", *cells, str(one.queued_tokens)])
    return _table(["  replica", *(head.removesuffix("_s") for head in heads)], rows)


def _own(one: Candidate, terms: Sequence[str]) -> list[str]:
    return [_number(one.total), *(_number(one.terms.get(name)) for name in terms)]


def disagreements(compared: Iterable[Compared]) -> Table:
    """Show how often each shadow disagrees, and what the forecast makes of it."""
    counts = ["decisions", "disagrees", "elsewhere", "not sent", "sooner", "later"]
    rows = []
    for one in compared:
        gain_s = one.gain_s
        where = (gain_s.mean, gain_s.p50, gain_s.p99) if gain_s else (None, None, None)
        counted = map(str, (one.other, one.none, one.sooner, one.later))
        gains = map(_gain, (one.mean_gain_s, *where))
        first = [one.policy, str(one.decisions), f"{one.disagreement:.1%}"]
        rows.append([*first, *counted, *gains, f"{one.gained_cached_tokens:+d}"])
    gained = ["gain", "gain elsewhere", "p50", "p99", "cached tokens"]
    return _table(["shadow", *counts, *gained], rows)


def swaps(compared: Iterable[Compared]) -> Table:
    """Show from where to where each shadow would have turned the most requests."""
    rows = [
        [f"{one.policy}: {swap.sent} → {swap.shadow}", str(swap.requests)]
        for one in compared
        for swap in one.swaps[:MOST_SWAPS]
    ]
    return _table(["sent to → rather to", "requests"], rows)


def errors(by: str, rows: Iterable[Errors]) -> Table:
    """Show how far somebody's predictions were off, by replica."""
    heads = ["requests", "came after", "predicted", "later by", "off by", "off p50", "off p90"]
    shown = []
    for row in rows:
        seconds = (row.actual_s, row.predicted_s, row.bias_s, row.absolute_s, row.p50_s, row.p90_s)
        shown.append([row.replica, str(row.requests), *map(_seconds, seconds)])
    return _table([by, *heads], shown)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    head, *lines = laid_out([heads, *rows], columns())
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _gain(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
