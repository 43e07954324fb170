"""Guards a fleet against answers that run far longer than they need: learns whose do, and caps those.

A tenant overflows when many of its last answers reach `long_tokens`; so does one class of its prompts, if
only those do. Its cap is a quantile of lengths of answers that are not long: its own, or everybody's where it
has too few. Nobody is capped without evidence of its own, nor ever above what was asked for. An answer that
the cap cut counts with what was asked: for all that is known it would have had that, so the evidence does not
vanish with the overflow. No text is kept, only lengths.

Source: BenchOverflow (Jan 2026), which measures overflow; its mitigation is a conciseness reminder. The cap
is this project's.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from math import ceil

from msgspec import Struct

from millrace.core.answer_lengths import BUDGET_TOKENS, AnswerLengths

MOST_GROUPS = 2048
MOST_NAMED = 64
"""Tenants that are counted by name; the others together as OTHERS."""
OTHERS = "(others)"
NAME_LIMIT = 128
"""Characters of a tenant's name that are kept."""


class GuardSettings(Struct, frozen=True, kw_only=True):
    """When answers overflow, and what is done then.

    From `long_tokens` on an answer is long; who has `evidence` answers or more, a `share` of them long,
    overflows, until it is less than half of that. With `caps`, its answers get at most `headroom` times the
    `quantile` of lengths that are not long, but `floor_tokens` at least; with `reminds`, its prompts end with
    a `reminder`. The last `remembered` answers count.
    """

    caps: bool = False
    reminds: bool = False
    long_tokens: int = 1000
    share: float = 0.5
    evidence: int = 20
    remembered: int = 200
    quantile: float = 0.95
    headroom: float = 1.5
    floor_tokens: int = 256
    reminder: str = "Answer concisely: give what was asked for, and nothing beyond it."

    def __post_init__(self) -> None:
        for name in ("long_tokens", "evidence", "floor_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("share", "quantile"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a share above 0, up to 1")
        if not 1 <= self.headroom < float("inf"):
            raise ValueError(f"headroom is {self.headroom}; it must be a number from 1")
        if self.remembered < self.evidence:
            raise ValueError(
                f"remembered is {self.remembered}; it must be at least evidence, {self.evidence}"
            )


class Whose(Struct, frozen=True):
    """What an answer is counted for; `prompts` is the class of its prompt (`core.prompt_class`)."""

    model: str
    tenant: str
    prompts: str


class Group:
    """The answers of one tenant, or to one class of its prompts."""

    __slots__ = ("lengths", "overflows")

    def __init__(self, remembered: int) -> None:
        self.lengths = AnswerLengths(remembered)
        self.overflows = False

    def see(self, tokens: int, settings: GuardSettings) -> None:
        """Take in an answer, and judge again."""
        self.lengths.see(tokens)
        if len(self.lengths) >= settings.evidence:
            limit = settings.share / 2 if self.overflows else settings.share
            self.overflows = self.lengths.saturation(settings.long_tokens) >= limit


class OverflowGuard:
    """Learns from the ends of answers; says whose are to be capped. The same ends make the same caps.

    `classes` has the lengths of all tenants by model and class; `beyond` counts tokens beyond what is usual,
    by model and tenant, and `beyond_by_class` by model and class.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self.classes: dict[tuple[str, str], AnswerLengths] = {}
        self.beyond: Counter[tuple[str, str]] = Counter()
        self.beyond_by_class: Counter[tuple[str, str]] = Counter()
        self._groups: OrderedDict[tuple[str, str, str], Group] = OrderedDict()
        self._everybody: dict[str, AnswerLengths] = {}
        self._named: set[str] = set()

    def overflows(self, whose: Whose) -> bool:
        """Whether the tenant's answers overflow, or those to such prompts of its do."""
        groups = (self._groups.get(key) for key in _keys(whose))
        return any(group is not None and group.overflows for group in groups)

    def cap_tokens(self, whose: Whose, asked: int | None) -> int | None:
        """Return what an answer may have, below what was asked; None if that is to stay as it is."""
        if not self.settings.caps or not self.overflows(whose):
            return None
        usual, settings = self.usual_tokens(whose), self.settings
        if usual is None:
            cap = settings.long_tokens
        else:
            cap = max(settings.floor_tokens, ceil(settings.headroom * usual))
        return cap if asked is None or cap < asked else None

    def usual_tokens(self, whose: Whose) -> int | None:
        """Return a length that answers which are not long seldom exceed: the tenant's own, if there is
        evidence of them, or else everybody's; None if there is of neither."""
        settings, own = self.settings, self._groups.get(_keys(whose)[0])
        for lengths in (own.lengths if own else None, self._everybody.get(whose.model)):
            if lengths is not None and lengths.below(settings.long_tokens) >= settings.evidence:
                return lengths.quantile(settings.quantile, below=settings.long_tokens)
        return None

    def see(self, whose: Whose, tokens: int, *, asked: int | None, cap: int | None = None) -> None:
        """Take in an answer of so many tokens, whose limit was lowered to `cap` if that is given."""
        usual = self.usual_tokens(whose)
        if usual is not None and tokens > usual:
            self.beyond[whose.model, self._named_as(whose.tenant)] += tokens - usual
            self.beyond_by_class[whose.model, whose.prompts] += tokens - usual
        if cap is not None and tokens >= cap:
            tokens = max(tokens, BUDGET_TOKENS if asked is None else asked)
        for key in _keys(whose):
            self._group(key).see(tokens, self.settings)
        remembered = self.settings.remembered
        for_class = self.classes.setdefault((whose.model, whose.prompts), AnswerLengths(remembered))
        for_class.see(tokens)
        self._everybody.setdefault(whose.model, AnswerLengths(10 * remembered)).see(tokens)

    def named(self) -> dict[tuple[str, str], Group]:
        """Return the groups of the tenants that are counted by name, by model and tenant."""
        return {
            (model, tenant): group
            for (model, tenant, prompts), group in self._groups.items()
            if not prompts and tenant in self._named
        }

    def _group(self, key: tuple[str, str, str]) -> Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self.settings.remembered)
        self._groups.move_to_end(key)
        if len(self._groups) > MOST_GROUPS:
            self._groups.popitem(last=False)
        return group

    def _named_as(self, tenant: str) -> str:
        name = tenant[:NAME_LIMIT]
        if len(self._named) < MOST_NAMED:
            self._named.add(name)
        return name if name in self._named else OTHERS


def _keys(whose: Whose) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    tenant = whose.tenant[:NAME_LIMIT]
    return (whose.model, tenant, ""), (whose.model, tenant, whose.prompts)
