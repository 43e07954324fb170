"""Under which names clients may ask for models: aliases, shares of several models, a catch-all, fallbacks.

Pure: a conversation always gets the same share, and so does a request without one by its id.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from math import inf

from msgspec.structs import replace

from millrace.core.draw import draw
from millrace.core.request import Request

ANYTHING = "*"
DRAWS = 1 << 64

Target = str | dict[str, float]
"""A served model, or several with their weights."""


class Names:
    """Resolves what clients ask for. Raises ValueError for names that lead nowhere."""

    def __init__(self, aliases: Mapping[str, Target], fallbacks: Mapping[str, tuple[str, ...]]) -> None:
        self.targets = {name: models_of(name, target) for name, target in aliases.items()}
        self._fallbacks = dict(fallbacks)
        self._anything = self.targets.get(ANYTHING)
        self._refuse_loops()

    def resolve(self, request: Request, served: Container[str]) -> Request:
        """Return the request for the model that its name stands for, with what that model falls back on.

        `served` are the names that need no catch-all.
        """
        shares = self.targets.get(request.model)
        if shares is None and self._anything is not None and request.model not in served:
            shares = self._anything
        model = request.model if shares is None else _drawn(shares, request.session or request.id)
        fallbacks = self._fallbacks.get(model, ())
        if model == request.model and not fallbacks:
            return request
        return replace(request, model=model, fallbacks=fallbacks)

    def _refuse_loops(self) -> None:
        looped = sorted({model for shares in self.targets.values() for model in shares} & set(self.targets))
        if looped:
            raise ValueError(
                f"aliases: {looped} stand for models and for other names; name the served models"
            )
        for model, others in self._fallbacks.items():
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
