"""Held requests in one line per model and tenant, first come first served within each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millrace.core.fleet import Held, Left
from millrace.core.ranked import Ranked
from millrace.core.request import Request


class TenantLines:
    """Listens for who is held and who leaves."""

    __slots__ = ("_lines", "_requests")

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, Ranked]] = {}
        self._requests: dict[str, Request] = {}

    def note(self, fact: Held | Left) -> None:
        """Let a request enter its line, or leave it."""
        if isinstance(fact, Held):
            self._requests[fact.request.id] = fact.request
            of_model = self._lines.setdefault(fact.request.model, {})
            of_model.setdefault(fact.request.tenant, Ranked()).put(fact.request.id, fact.number)
        else:
            self._leave(fact.request)

    def tenants(self, model: str) -> Iterable[str]:
        """Return the tenants with somebody held for a model, in the order in which they began to be."""
        return self._lines.get(model, {})

    def models(self, tenant: str) -> list[str]:
        """Return the models for which somebody of a tenant is held."""
        return [model for model, lines in self._lines.items() if tenant in lines]

    def head(self, model: str, tenant: str) -> Request | None:
        """Return the first of a tenant's requests for a model; None if none is held."""
        line = self._lines.get(model, {}).get(tenant)
        first = None if line is None else line.first()
        return None if first is None else self._requests[first]

    def number(self, model: str, tenant: str) -> int:
        """Return the number of the first of a tenant's requests for a model, one of which is held."""
        number: int = self._lines[model][tenant].first_rank()
        return number

    def _leave(self, request: Request) -> None:
        del self._requests[request.id]
        of_model: dict[str, Ranked] = self._lines[request.model]
        of_model[request.tenant].discard(request.id)
        if not of_model[request.tenant]:
            del of_model[request.tenant]
        if not of_model:
            del self._lines[request.model]


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise ValueError unless every tenant's weight is a number above 0."""
    for tenant, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise ValueError(f"weights: that of {tenant!r} is {weight}; it must be a number above 0")
