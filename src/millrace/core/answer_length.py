"""Answers are short, medium or long: what is said of one before it is there.

Source: the classes of Clairvoyant (under 200 tokens, under 800, the rest).
"""

from __future__ import annotations

from msgspec import Struct

CLASSES = ("short", "medium", "long")
BOUNDS = (200, 800)


class LengthPrediction(Struct, frozen=True):
    """An answer of about `tokens`, whose class is among `classes` (0 short, 1 medium, 2 long).

    How often it is among them is what the predictor was calibrated for; all of them rule out nothing.
    """

    tokens: int
    classes: tuple[int, ...]

    @property
    def rules_out(self) -> int:
        """How many classes the answer does not belong to."""
        return len(CLASSES) - len(self.classes)


def class_of(tokens: int, bounds: tuple[int, int] = BOUNDS) -> int:
    """Return the number of the class that an answer of so many tokens has."""
    return (tokens >= bounds[0]) + (tokens >= bounds[1])
