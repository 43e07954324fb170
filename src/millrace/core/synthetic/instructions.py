"""Instructions that nobody gave, with answers whose length depends on the wording, and on luck.

Real conversations cannot be shipped. These are put together from phrases, and an answer is as long as the
kind of instruction, its object and its limits say, times a factor drawn from a lognormal distribution. What
can be learned from them is therefore made to be learned, as far as the luck allows: they show that a pipeline
works, not how predictable people are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import cos, exp, log, pi, sqrt
from typing import TypeVar

from msgspec import Struct

from millrace.core.draw import draw, draw_below

KINDS: tuple[tuple[str, float], ...] = (
    ("What is {topic}?", 45),
    ("Who came up with {topic}?", 20),
    ("When does one use {topic}?", 35),
    ("Define {topic}.", 40),
    ("Is {topic} still in use?", 30),
    ("Why does {topic} matter, and for whom?", 160),
    ("How does {topic} work?", 260),
    ("List the parts of {topic}.", 180),
    ("Describe {topic} to a newcomer.", 330),
    ("Summarize what is known about {topic}.", 150),
    ("Compare {topic} and {other}; say when to use which.", 480),
    ("Explain {topic} step by step, with an example.", 620),
    ("Write a script that shows {topic}, and explain each function.", 900),
    ("Implement {topic} as a class with tests; handle errors, and document the API.", 1300),
    ("Write an essay on {topic} and {other}, their history, and what came of them.", 1100),
)
LIMITS: tuple[tuple[str, float], ...] = (
    ("", 1.0),
    ("", 1.0),
    ("", 1.0),
    (" Answer briefly.", 0.35),
    (" Answer in 30 words.", 0.25),
    (" Use a table.", 1.2),
    (" Be thorough, because it is for a report.", 1.6),
)
TOPICS = (
    "a hash table",
    "photosynthesis",
    "the tides",
    "compound interest",
    "a steam engine",
    "public key cryptography",
    "the water cycle",
    "a binary search",
    "sourdough",
    "plate tectonics",
    "double-entry bookkeeping",
    "a bloom filter",
)


T = TypeVar("T")


class Instruction(Struct, frozen=True):
    """What is asked, and how many tokens the answer has."""

    text: str
    answer_tokens: int


def instructions(
    count: int, *, seed: int = 0, luck: float = 0.5, longest: int = 4000
) -> Iterator[Instruction]:
    """Yield so many instructions, the same ones for the same seed.

    `luck` is the standard deviation of the logarithm of what an answer's length is multiplied with.
    """
    for number in range(count):
        name = ("instruction", seed, number)
        kind, tokens = _one(KINDS, *name, "kind")
        limit, factor = _one(LIMITS, *name, "limit")
        topic, other = (_one(TOPICS, *name, place) for place in ("topic", "other"))
        text = kind.format(topic=topic, other=other) + limit
        answer_tokens = round(tokens * factor * exp(luck * _normal(*name)))
        yield Instruction(text, max(1, min(longest, answer_tokens)))


def _one(options: Sequence[T], *names: object) -> T:
    return options[draw_below(len(options), *names)]


def _normal(*names: object) -> float:
    """Box and Muller's way from two even chances to a normal one."""
    first, second = ((draw(*names, place) + 1) / (2**64 + 1) for place in ("radius", "angle"))
    return sqrt(-2 * log(first)) * cos(2 * pi * second)
