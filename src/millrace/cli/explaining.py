"""Tables of decisions: what was weighed, what others would have done, and how far predictions were off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

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
    table = Table("", "replica")
    for head in heads:
        table.add_column(head.removesuffix("_s"), justify="right", no_wrap=True)
    chosen = answer.decision.replica if isinstance(answer.decision, Route) else None
    for one in answer.candidates:
        cells = _own(one, terms) if answer.by else []
        cells += [_seconds(one.ttft_s)] if predicts else []
        cells += [_seconds(one.foreseen_s), str(one.cached_tokens), str(one.waiting), str(one.running)]
        table.add_row("→" if one.replica == chosen else "", one.replica, *cells, str(one.queued_tokens))
    return table


def _own(one: Candidate, terms: Sequence[str]) -> list[str]:
    return [_number(one.total), *(_number(one.terms.get(name)) for name in terms)]


def disagreements(compared: Iterable[Compared]) -> Table:
    """Show how often each shadow disagrees, and what the forecast makes of it."""
    table = Table("shadow")
    for head in ("decisions", "disagrees", "elsewhere", "not sent", "sooner", "later"):
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("gain mean", "where elsewhere", "p50", "p99", "cached tokens"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in compared:
        gain_s = one.gain_s
        counts = (one.other, one.none, one.sooner, one.later)
        where = (gain_s.mean, gain_s.p50, gain_s.p99) if gain_s else (None, None, None)
        table.add_row(
            one.policy,
            str(one.decisions),
            f"{one.disagreement:.1%}",
            *map(str, counts),
            _gain(one.mean_gain_s),
            *map(_gain, where),
            f"{one.gained_cached_tokens:+d}",
        )
    return table


def swaps(compared: Iterable[Compared]) -> Table:
    """Show from where to where each shadow would have turned the most requests."""
    table = Table("shadow", "sent to", "rather to")
    table.add_column("requests", justify="right")
    for one in compared:
        for swap in one.swaps[:MOST_SWAPS]:
            table.add_row(one.policy, swap.sent, swap.shadow, str(swap.requests))
    return table


def errors(by: str, rows: Iterable[Errors]) -> Table:
    """Show how far somebody's predictions were off, by replica."""
    table = Table(by)
    for head in ("requests", "came after", "predicted", "later by", "off by", "off p50", "off p90"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        seconds = (row.actual_s, row.predicted_s, row.bias_s, row.absolute_s, row.p50_s, row.p90_s)
        table.add_row(row.replica, str(row.requests), *map(_seconds, seconds))
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _gain(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
