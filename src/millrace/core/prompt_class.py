"""Coarse kinds of prompts, by the numbers of `core.lexical`: few enough to keep a distribution for each."""

from __future__ import annotations

from millrace.core.lexical import FEATURES

CLASSES = ("limited", "code", "list", "write", "explain", "ask", "other", "unread")
"""In the order of precedence; `unread` prompts have no text, like those of token ids."""

_PLACE = {name: place for place, name in enumerate(FEATURES)}
_MARKS = (
    ("limited", ("has_length_constraint",)),
    ("code", ("has_code_keyword",)),
    ("list", ("has_format_keyword", "verb_list")),
    ("write", ("verb_write", "verb_generate", "verb_describe", "verb_implement")),
    ("explain", ("verb_explain", "verb_how", "verb_why", "verb_compare")),
    ("ask", ("verb_what", "verb_define", "verb_summarize", "ends_with_question")),
)
_RULES = tuple((name, tuple(_PLACE[mark] for mark in marks)) for name, marks in _MARKS)


def prompt_class(lexical: tuple[int, ...]) -> str:
    """Return the name of the class; no numbers, or too few, are of a prompt that was not read."""
    if len(lexical) != len(FEATURES):
        return "unread"
    return next((name for name, places in _RULES if any(lexical[place] for place in places)), "other")
