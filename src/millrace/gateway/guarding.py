"""The guard against overflow in the gateway: what it changes in a request, and what it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.answer_lengths import SATURATIONS, AnswerLengths
from millrace.core.asked_text import asked_text
from millrace.core.lexical import lexical
from millrace.core.overflow import GuardSettings, OverflowGuard, Whose
from millrace.core.prompt import Kind
from millrace.core.prompt_class import prompt_class
from millrace.core.request import Request
from millrace.gateway.limiting import LIMITS, answers_asked, asked_tokens, with_limit, with_reminder
from millrace.gateway.metrics import Family, labels
from millrace.gateway.routes import COUNT_TOKENS
from millrace.gateway.usage import Usage
from millrace.gateway.wire import Wire


class Guarded(Struct, frozen=True):
    """What the guard knows of a request: whose it is, what it asked for, and what became of that."""

    whose: Whose
    asked: int | None
    answers: int
    cap: int | None = None
    reminded: bool = False

    def limited(self, request: Request) -> Request:
        """Return the request with the limit that was lowered."""
        return request if self.cap is None else replace(request, max_tokens=min(request.max_tokens, self.cap))

    @property
    def fields(self) -> bytes:
        """Header lines that tell the client what was changed."""
        told = b"" if self.cap is None else b"x-millrace-max-tokens: %d\r\n" % self.cap
        return told + (b"x-millrace-reminder: appended\r\n" if self.reminded else b"")


class Guarding:
    """A guard at work, for as long as a gateway runs."""

    def __init__(self, settings: GuardSettings) -> None:
        self.guard = OverflowGuard(settings)
        self.capped: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.reminded: Counter[str] = Counter()

    def read(self, request: Request, kind: Kind, wire: Wire) -> tuple[Guarded, Wire] | None:
        """Return what becomes of the request, and as what it goes on; None if its answer has no length.

        None of its words is kept.
        """
        if not LIMITS[kind] or wire.target == COUNT_TOKENS:
            return None
        text = asked_text(wire.body, kind)
        whose = Whose(request.model, request.tenant, prompt_class(lexical(text) if text else ()))
        asked = asked_tokens(wire.body, kind)
        cap, wire = self._capped(whose, asked, kind, wire)
        reminded, wire = self._reminding(whose, kind, wire)
        return Guarded(whose, asked, answers_asked(wire.body, kind), cap, reminded), wire

    def ended(self, seen: Guarded, usage: Usage) -> None:
        """Learn from an answer that came to its end, if its engine said how long it was."""
        if usage.output_tokens is None:
            return
        tokens = round(usage.output_tokens / seen.answers)
        self.guard.see(seen.whose, tokens, asked=seen.asked, cap=seen.cap)
        if seen.cap is not None and tokens >= seen.cap:
            self.cut[seen.whose.model] += 1

    def families(self) -> Iterator[Family]:
        """Yield what belongs on the metrics page."""
        guard = self.guard
        yield Family(
            "overflow_tokens_total",
            "Output tokens beyond the usual length of an answer, by tenant",
            "counter",
            {labels(model=m, tenant=t): float(n) for (m, t), n in guard.beyond.items()},
        )
        yield Family(
            "overflow_class_tokens_total",
            "Output tokens beyond the usual length of an answer, by class of prompts",
            "counter",
            {labels(model=m, prompts=c): float(n) for (m, c), n in guard.beyond_by_class.items()},
        )
        counted = (
            ("overflow_capped_total", "Requests whose limit was lowered", self.capped),
            ("overflow_cut_total", "Answers that ended at a lowered limit", self.cut),
            ("overflow_reminded_total", "Requests that got a reminder to be concise", self.reminded),
        )
        for name, help_, counts in counted:
            yield Family(name, help_, "counter", {labels(model=m): float(n) for m, n in counts.items()})
        yield from self._rates()

    def _rates(self) -> Iterator[Family]:
        guard, groups = self.guard, self.guard.named()
        by_class = [({"model": m, "prompts": c}, found) for (m, c), found in guard.classes.items()]
        by_tenant = [({"model": m, "tenant": t}, group.lengths) for (m, t), group in groups.items()]
        yield _saturations("cap_saturation_ratio", "by class of prompts", by_class)
        yield _saturations("tenant_cap_saturation_ratio", "by tenant", by_tenant)
        overflowing = {labels(model=m, tenant=t): float(g.overflows) for (m, t), g in groups.items()}
        yield Family("tenant_overflows", "1 while a tenant's answers overflow", "gauge", overflowing)

    def _capped(self, whose: Whose, asked: int | None, kind: Kind, wire: Wire) -> tuple[int | None, Wire]:
        cap = self.guard.cap_tokens(whose, asked)
        body = None if cap is None else with_limit(wire.body, kind, cap)
        if body is None:
            return None, wire
        self.capped[whose.model] += 1
        return cap, replace(wire, body=body)

    def _reminding(self, whose: Whose, kind: Kind, wire: Wire) -> tuple[bool, Wire]:
        settings = self.guard.settings
        if kind != "chat" or not settings.reminds or not self.guard.overflows(whose):
            return False, wire
        body = with_reminder(wire.body, settings.reminder)
        if body is None:
            return False, wire
        self.reminded[whose.model] += 1
        return True, replace(wire, body=body)


def _saturations(name: str, by: str, found: list[tuple[dict[str, str], AnswerLengths]]) -> Family:
    values = {
        labels(**whose, tokens=str(tokens)): lengths.saturation(tokens)
        for whose, lengths in found
        for tokens in SATURATIONS
    }
    return Family(name, f"Share of the last answers of at least so many tokens, {by}", "gauge", values)
