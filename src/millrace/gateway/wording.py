"""What the gateway reads in the words of a request: numbers that tell of the length of its answer."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from millrace.core.answer_length import LengthPrediction
from millrace.core.asked_text import asked_text
from millrace.core.lexical import lexical
from millrace.core.prompt import Kind
from millrace.core.request import Request

Predict = Callable[[tuple[int, ...]], LengthPrediction]
"""Makes a prediction of the numbers of `core.lexical`."""


class Wording:
    """Lets requests carry a prediction, if somebody makes one, and the numbers too, if they are `kept`."""

    def __init__(self, predict: Predict | None = None, *, kept: bool = False) -> None:
        self._predict, self._kept = predict, kept

    def read(self, request: Request, kind: Kind, body: bytes) -> Request:
        """Return the request with what its words tell; none of them leaves here."""
        text = asked_text(body, kind)
        if text is None:
            return request
        numbers = lexical(text)
        predicted = self._predict(numbers) if self._predict else None
        return replace(request, lexical=numbers if self._kept else (), predicted=predicted)
