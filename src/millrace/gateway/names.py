"""Under which names clients may ask for models: aliases, shares of several models, a catch-all, fallbacks.

Pure: a conversation always gets the same share, and so does a request without one by its id.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from math import inf

from millrace.core.draw import draw

ANYTHING = "*"
DRAWS = 1 << 64

Target = str | dict[str, float]
"""A served model, or several with their weights."""


class Names:
    """Resolves what clients ask for; `fallbacks` are what models turn to. Raises ValueError for bad names."""

    def __init__(self, aliases: Mapping[str, Target], fallbacks: Mapping[str, tuple[str, ...]]) -> None:
        self.targets = {name: models_of(name, target) for name, target in aliases.items()}
        self.fallbacks = dict(fallbacks)
        self._anything = self.targets.get(ANYTHING)
        self._refuse_loops()

    def model_for(self, name: str, who: str, served: Container[str]) -> str:
        """Return the model that a name stands for; `who` asks: a conversation, or else a single request.

        `served` are the names that need no catch-all.
        """
        shares = self.targets.get(name)
        if shares is None and self._anything is not None and name not in served:
            shares = self._anything
        return name if shares is None else _drawn(shares, who)

    def _refuse_loops(self) -> None:
        looped = sorted({model for shares in self.targets.values() for model in shares} & set(self.targets))
        if looped:
            raise ValueError(
                f"aliases: {looped} stand for models and for other names; name the served models"
            )
        for model, others in self.fallbacks.items():
            if not others or len({model, *others}) <= len(others):
                raise ValueError(f"fallbacks: {model!r} must fall back on other models, each named once")
            if named := sorted({model, *others} & set(self.targets)):
                raise ValueError(f"fallbacks: {named} are aliases; name the served models")


def models_of(name: str, target: Target) -> dict[str, float]:
    """Return the models that a name stands for, with their weights. Raises ValueError."""
    shares = {target: 1.0} if isinstance(target, str) else target
    if not shares or not all(0 < weight < inf for weight in shares.values()):
        raise ValueError(f"aliases: {name!r} must stand for models with weights above 0, not {target!r}")
    return dict(shares)


def _drawn(shares: dict[str, float], who: str) -> str:
    """Return the share that belongs to this name; the simulator draws in the same way."""
    *others, last = shares
    left = draw("models", who) / DRAWS * sum(shares.values()) if others else 0.0
    for model in others:
        left -= shares[model]
        if left < 0:
            return model
    return last
