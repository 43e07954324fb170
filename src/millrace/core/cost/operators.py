"""Everything in a step but attention, as measured: layers by tokens, LM head and sampler by sequences."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.cost.collective import Collective
from millrace.core.cost.curve import Curve, at_least
from millrace.core.model import ModelSpec

_BYTES_EACH = 2  # of an activation or a logit that devices exchange: bf16


class Experts(Struct, frozen=True, kw_only=True):
    """The experts of all layers: a curve over the experts woken for each measured number of tokens.

    `ranks` devices share the work: each has whole experts (`whole`), or a slice of every expert.
    """

    tokens: tuple[int, ...]
    woken: tuple[Curve, ...]
    experts: int
    active: int
    ranks: int = 1
    whole: bool = False

    def price_s(self, tokens: int) -> float:
        """Seconds for the tokens of all ranks, if every expert is equally likely to be woken."""
        woken = self.experts * (1 - (1 - self.active / self.experts) ** tokens)
        if self.whole:
            return self._at(tokens / self.ranks, woken / self.ranks)
        return self._at(tokens, woken) / self.ranks

    def _at(self, tokens: float, woken: float) -> float:
        return Curve(self.tokens, tuple(by_woken.at(woken) for by_woken in self.woken)).at(tokens)


class Exchange(Struct, frozen=True, kw_only=True):
    """What devices exchange in a step: `start_s` in all, and so much for each token and each sequence.

    With experts on other ranks, each token of any rank is sent there and back: `experts_start_s` and
    `experts_token_s`.
    """

    start_s: float = 0.0
    per_token_s: float = 0.0
    per_sequence_s: float = 0.0
    experts_start_s: float = 0.0
    experts_token_s: float = 0.0


class Operators(Struct, frozen=True, kw_only=True):
    """Measured seconds of a step without attention.

    `dense` is by tokens, after rounding them up to one of `graph_tokens` as an engine does that replays
    captured graphs; `head` (LM head and sampler) by sequences. `host_s` is what the host adds to every
    step: nothing if the engine schedules ahead while the device computes.
    """

    dense: Curve
    head: Curve
    experts: Experts | None = None
    exchange: Exchange = Exchange()
    host_s: float = 0.0
    graph_tokens: tuple[int, ...] = ()

    def own_s(self, decodes: int, prefills: int, prefill_tokens: int) -> float:
        """Seconds of what a rank does by itself."""
        tokens = at_least(self.graph_tokens, decodes + prefill_tokens)
        sequences = decodes + prefills
        exchange = self.exchange
        return (
            self.host_s
            + self.dense.at(tokens)
            + self.head.at(sequences)
            + exchange.start_s
            + tokens * exchange.per_token_s
            + sequences * exchange.per_sequence_s
        )

    def experts_s(self, tokens: int) -> float:
        """Seconds of the experts, and of the way there and back, for the tokens of all ranks."""
        if not self.experts or not tokens:
            return 0.0
        exchange = self.exchange
        return self.experts.price_s(tokens) + exchange.experts_start_s + tokens * exchange.experts_token_s


def exchange_of(
    model: ModelSpec, across: Collective | None, *, experts_across: Collective | None = None
) -> Exchange:
    """Return what a step exchanges: `across` the devices of a layer, and across ranks that share experts.

    Each layer sums up twice, the embedding once, and the logits are gathered.
    """
    found = Exchange()
    if across:
        sums = 2 * model.layers + 1
        found = Exchange(
            start_s=(sums + 1) * across.start_s,
            per_token_s=sums * _BYTES_EACH * model.hidden * across.per_byte_s,
            per_sequence_s=_BYTES_EACH * model.vocab * across.gather_byte_s,
        )
    if experts_across:
        sent_bytes = _BYTES_EACH * (2 * model.hidden + model.experts)  # there with router logits, and back
        found = replace(
            found,
            experts_start_s=model.expert_layers * 2 * experts_across.start_s,
            experts_token_s=model.expert_layers * sent_bytes * experts_across.gather_byte_s,
        )
    return found


def graph_sizes(largest: int) -> tuple[int, ...]:
    """Return the batch sizes for which vLLM captures graphs, up to `largest` tokens."""
    fine, coarse = range(8, min(256, largest + 1), 8), range(256, largest + 1, 16)
    return (*(size for size in (1, 2, 4) if size <= largest), *fine, *coarse)
