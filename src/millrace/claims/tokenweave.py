"""Two halves of a step's tokens, one sending while the other computes, make it up to 1.29x faster.

For Llama-3-70B on eight H100, whose data sheet, kernels' shares and all-reduces the roofline knows, steps of
prompts are priced whole and in two halves: what one half sends goes on beside what the other computes, and
takes 8 of 132 multiprocessors; the matrix products of the halves read the weights twice and may take another
wave of tiles, which the place of the split avoids as far as it can. Large steps gain, also one of 1,024
tokens, and small ones do not, so those are left whole: no step of a few hundred random ones is priced above
what it was. A step that sends nothing is the bound. The all-reduces known here (NCCL's, without sums in the
switch) take more than the fifth of a step that the paper speaks of, so there is more to hide; the gains "at a
fifth" are with a link that is quicker by as much. What the paper's fused kernel saves on norms is not
counted, and that kernel is not part of this project; no overlap was measured here. Engines of a simulated
fleet are priced so if they say `overlap=tokenweave`.

Source: Gond et al., TokenWeave: Efficient Compute-Communication Overlap for Distributed LLM Inference,
arXiv:2505.11329.
"""

from __future__ import annotations

from msgspec.structs import replace

from millrace.claims import Check, Kind
from millrace.core.catalogue import device, model
from millrace.core.cost import Efficiency, Roofline, StepShape, efficiency_of
from millrace.core.cost.overlapping import Overlapping
from millrace.core.draw import draw_below

KIND: Kind = "modelled"
MODEL, DEVICE, DEVICES = "llama-3-70b", "h100", 8
STEPS_TOKENS = (1024, 2048, 4096, 8192)
SMALL_TOKENS = 256
SENT_SHARE = 0.2
RANDOM = 300


def measure() -> list[Check]:
    """Price steps whole and in halves, with the all-reduces known here and with quicker ones."""
    own = efficiency_of(DEVICE)
    quick = quicker(own)
    gains, quick_gains = gains_of(own), gains_of(quick)
    return [
        Check(what="sending, share of a step of 2048 tokens", value=100 * sent_share(own, 2048), unit="%"),
        Check(what="gain of 1024 tokens", value=gains[0], unit="x", at_least=1),
        Check(what="largest gain", value=max(gains), unit="x", at_least=1.29),
        Check(what="largest gain over that of sending nothing", value=max(bounded(own)), unit="x", at_most=1),
        Check(what="gain of 1024 tokens, at a fifth", value=quick_gains[0], unit="x", at_least=1),
        Check(what="largest gain, at a fifth", value=max(quick_gains), unit="x", at_least=1.15),
        Check(what="gain of 256 tokens if it were split", value=small_gain(own), unit="x", at_most=1),
        Check(
            what="largest price of a random step, over the price whole",
            value=max(map(risk, range(RANDOM))),
            unit="x",
            at_most=1,
        ),
    ]


def gains_of(efficiency: Efficiency) -> list[float]:
    """Return how many times as fast steps of prompts are in halves."""
    return [_whole(efficiency).step_s(s) / _halved(efficiency).step_s(s) for s in map(prompt, STEPS_TOKENS)]


def bounded(efficiency: Efficiency) -> list[float]:
    """Return gains over those of steps that send nothing."""
    cost, halved = _whole(efficiency), _halved(efficiency)
    return [
        (cost.step_s(prompt(tokens)) - _sending_s(cost, tokens)) / halved.step_s(prompt(tokens))
        for tokens in STEPS_TOKENS
    ]


def small_gain(efficiency: Efficiency) -> float:
    """Return how many times as fast a small step would be in halves."""
    small = prompt(SMALL_TOKENS)
    return _whole(efficiency).step_s(small) / _halved(efficiency).overlapped_s(small)


def sent_share(efficiency: Efficiency, tokens: int) -> float:
    """Return the share of a step that goes by with sending."""
    cost = _whole(efficiency)
    return _sending_s(cost, tokens) / cost.step_s(prompt(tokens))


def quicker(efficiency: Efficiency, tokens: int = 8192) -> Efficiency:
    """Return the efficiency with a link so quick that sending takes a fifth of a step of so many tokens."""
    cost = _whole(efficiency)
    sending_s = _sending_s(cost, tokens)
    wanted_s = (cost.step_s(prompt(tokens)) - sending_s) * SENT_SHARE / (1 - SENT_SHARE)
    start_s = cost.exchange.start_s
    return replace(efficiency, link=efficiency.link * (sending_s - start_s) / (wanted_s - start_s))


def risk(seed: int) -> float:
    """Return the price of a random step over its price whole."""
    decodes, tokens = draw_below(513, "decodes", seed), draw_below(4096, "tokens", seed)
    context = decodes * draw_below(4096, "context", seed)
    shape = StepShape(decodes, context, 1, tokens + 1, (tokens + 1) ** 2, decodes + 1)
    own = efficiency_of(DEVICE)
    return _halved(own).step_s(shape) / _whole(own).step_s(shape)


def prompt(tokens: int) -> StepShape:
    """Return the shape of a step that computes a prompt."""
    return StepShape(prefills=1, prefill_tokens=tokens, prefill_attended_tokens=tokens * (tokens + 1) // 2)


def _sending_s(cost: Roofline, tokens: int) -> float:
    return cost.exchange.start_s + tokens * cost.exchange.per_token_s


def _whole(efficiency: Efficiency) -> Roofline:
    return Roofline(model(MODEL), device(DEVICE), tensor_parallel=DEVICES, efficiency=efficiency)


def _halved(efficiency: Efficiency) -> Overlapping:
    return Overlapping(
        model(MODEL), device(DEVICE), "tokenweave", tensor_parallel=DEVICES, efficiency=efficiency
    )
