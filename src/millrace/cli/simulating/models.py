"""Which model of the fleet a request asks for: the one its trace names, another name for it, or its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from millrace.core.draw import draw
from millrace.core.suggest import unknown
from millrace.core.trace import TraceRecord

FORM = "write it like NAME=llama-3-8b for names of the trace, or llama-3-8b:70,qwen3-8b:30 for shares"


class Models(Struct, frozen=True, kw_only=True):
    """Models for names of the trace, or else shares of all requests; without either, names stay."""

    renamed: dict[str, str] = {}
    shares: dict[str, float] = {}

    def asked_by(self, record: TraceRecord) -> str | None:
        """Return the model that a request asks for; None if neither trace nor settings say.

        A share is drawn from the session's name, so that a conversation stays with its model, or else
        from the request's id.
        """
        if not self.shares:
            return self.renamed.get(record.model or "", record.model)
        place = draw("models", record.session or record.id) / 2**64 * sum(self.shares.values())
        for model, share in self.shares.items():
            place -= share
            if place < 0:
                return model
        return model


def parse_models(text: str, served: Collection[str]) -> Models:
    """Read `A=B,C=D` or `B:70,D:30`. Raises ValueError for what cannot be read, or is not `served`."""
    renamed: dict[str, str] = {}
    shares: dict[str, float] = {}
    for part in (part.strip() for part in text.split(",")):
        name, equals, model = part.partition("=")
        if equals:
            renamed[name.strip()] = _served(model.strip(), served)
        else:
            model, _, share = part.rpartition(":")
            shares[_served(model.strip() or part, served)] = _share(part, share if model else "1")
    if renamed and shares:
        raise ValueError(f"--models {text}: has both names and shares; {FORM}")
    return Models(renamed=renamed, shares=shares)


def ask(records: Iterable[TraceRecord], models: Models, default: str) -> Iterator[TraceRecord]:
    """Yield the records with the model that each asks for."""
    return (replace(record, model=models.asked_by(record) or default) for record in records)


def notes(records: Iterable[TraceRecord], models: Models, served: Collection[str]) -> Iterator[str]:
    """Yield what a person should know before the results surprise them."""
    asked = Counter(models.asked_by(record) for record in records)
    if asked[None] and len(served) > 1:
        first, *others = served
        yield (
            f"{asked[None]:,} requests name no model, and all of them ask for {first}; "
            f"to share them, say --models {first}:50,{others[0]}:50"
        )
    refused = {name: count for name, count in asked.items() if name is not None and name not in served}
    if refused:
        listed = ", ".join(f"{name}: {count:,}" for name, count in refused.items())
        cure = ",".join(f"{name}={next(iter(served))}" for name in refused)
        yield f"requests for models that the fleet does not serve are refused ({listed}); say --models {cure}"


def _served(model: str, served: Collection[str]) -> str:
    if model not in served:
        raise ValueError(f"--models: {unknown('model of the fleet', model, served)}; {FORM}")
    return model


def _share(part: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < float("inf"):
        raise ValueError(f"--models {part}: the share is {text!r}; it must be a number above 0, like 70")
    return share
