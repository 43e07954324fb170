"""Answers in which a model goes by the name that the client used, by replacing bytes: nothing is decoded.

Inside a JSON string every quote is escaped, so `"model":"NAME"` cannot be part of the text a model wrote.
"""

from __future__ import annotations

import json

import msgspec

SPACINGS = (b'"model":%b', b'"model": %b')


class Renaming:
    """Puts one name in the place of another wherever an answer says `"model"`."""

    def __init__(self, served: str, asked: str) -> None:
        new = msgspec.json.encode(asked)
        spellings = {msgspec.json.encode(served), json.dumps(served).encode()}
        self._swaps = [(space % old, space % new) for old in sorted(spellings) for space in SPACINGS]

    def __call__(self, data: bytes) -> bytes:
        """Return whole events, or a whole body, with the name replaced."""
        for old, new in self._swaps:
            data = data.replace(old, new)
        return data
