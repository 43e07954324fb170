"""How one request wants its tokens chosen: the parameters of OpenAI's interface and vLLM's extensions."""

from __future__ import annotations

from msgspec import Struct

# Below this, dividing by the temperature would overflow; the most likely token is taken instead (vLLM).
COLDEST = 1e-5


class Sampling(Struct, frozen=True, kw_only=True):
    """Parameters of one sequence. The defaults sample from the model's own distribution.

    Equal `seed` and equal prompt give equal tokens, whatever else is in the batch. `top_k` 0 keeps all
    tokens. `logprobs` is how many alternatives to report beside each chosen token, None reports nothing.
    """

    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    min_tokens: int = 0
    logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < COLDEST

    @property
    def penalised(self) -> bool:
        """Whether tokens seen before are judged differently."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1)


class Logprob(Struct, frozen=True):
    """Log probabilities of a chosen token and of the likeliest ones, as the model gave them."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
