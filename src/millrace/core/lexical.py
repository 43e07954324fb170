"""What the wording of a request tells of the length of its answer: 19 numbers, of which no text can be made.

The same function makes them for training and for serving, so that both see the same. They are those of the
published code; where that is about words, it is about words of any script here.

Source: Clairvoyant's scheduler (`features.go`, b7cf172).
"""

from __future__ import annotations

import re

VERBS = (
    "what",
    "write",
    "explain",
    "summarize",
    "how",
    "list",
    "implement",
    "compare",
    "describe",
    "generate",
    "why",
    "define",
    "other",
)
FEATURES = (
    "prompt_token_len",
    "has_code_keyword",
    "has_length_constraint",
    "ends_with_question",
    "has_format_keyword",
    "clause_count",
    *(f"verb_{verb}" for verb in VERBS),
)
"""The names of the numbers, in their order."""

LOOKED_AT = 1024
"""Characters of a prompt that are looked at: of longer ones the first and the last half of so many."""

# fmt: off
_CODE = frozenset((
    "code", "function", "def", "class", "script", "program", "implement", "algorithm", "debug",
    "refactor", "import", "variable", "loop", "recursion", "api", "sql", "regex", "react", "angular",
    "vue", "nextjs", "typescript", "javascript", "html", "css", "node", "express", "django", "flask",
    "component", "endpoint", "middleware", "query",
))
# fmt: on
_FORMATS = (
    "list",
    "table",
    "bullet",
    "step by step",
    "enumerate",
    "outline",
    "numbered",
    "format",
    "structure",
)
_CLAUSES = (",", ";", " and ", " but ", " because ")
_FORMS = (
    ("summarize", "summarize"),
    ("summarizing", "summarize"),
    ("explain", "explain"),
    ("compare", "compare"),
    ("comparing", "compare"),
    ("translate", "other"),
    ("translating", "other"),
    ("generate", "generate"),
    ("generating", "generate"),
    ("implement", "implement"),
    ("debug", "other"),
    ("refactor", "other"),
    ("list", "list"),
    ("write", "write"),
    ("describe", "describe"),
    ("describing", "describe"),
    ("define", "define"),
    ("defining", "define"),
    ("what", "what"),
    ("how", "how"),
    ("why", "why"),
)
"""Forms of verbs, the first of which that is there counts, wherever it stands."""

_ONE_HOT = {verb: tuple(int(verb == one) for one in VERBS) for verb in VERBS}
_PLACES = [(form, _ONE_HOT[verb]) for form, verb in _FORMS]
_words = re.compile(r"\w+").findall
_SHORT = frozenset(("briefly", "concisely", "shortly", "tldr"))
_HINTS = frozenset(("word", "words", "sentence", "sentences", "than", "liner", "dr"))
"""Words without one of which there is no limit to look for."""

_limit = re.compile(
    r"\bin\s+\d+\s+(?:words?|sentences?)\b|\bno\s+more\s+than\s+\d|\bunder\s+\d+\s+words?\b"
    r"|\bone[\s-]liner\b|\btl;dr\b"
).search


def lexical(text: str) -> tuple[int, ...]:
    """Return the numbers named by `FEATURES` for what a client asked."""
    size_bytes = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    if len(text) > LOOKED_AT:
        text = f"{text[: LOOKED_AT // 2]}\n{text[-LOOKED_AT // 2 :]}"
    lower = text.lower()
    words = frozenset(_words(lower))
    return (
        size_bytes // 4,
        int(_is_code(lower, words)),
        int(_is_limited(lower, words)),
        int(text.rstrip().endswith("?")),
        int(any(word in lower for word in _FORMATS)),
        sum(map(lower.count, _CLAUSES)),
        *next((place for form, place in _PLACES if form in words), _ONE_HOT["other"]),
    )


def _is_code(lower: str, words: frozenset[str]) -> bool:
    """Names are several words here: an underscore is none of a letter's."""
    if not _CODE.isdisjoint(words):
        return True
    return "_" in lower and not _CODE.isdisjoint(_words(lower.replace("_", " ")))


def _is_limited(lower: str, words: frozenset[str]) -> bool:
    if not _SHORT.isdisjoint(words):
        return True
    return not _HINTS.isdisjoint(words) and _limit(lower) is not None
