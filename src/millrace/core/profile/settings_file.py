"""The little of YAML that profilers write their settings in: nested mappings, lists in brackets, scalars."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_ENTRY = re.compile(r"(?P<indent> *)(?P<key>'[^']*'|\"[^\"]*\"|[^\s'\"\[{#-][^:]*):(?:\s+(?P<value>.*))?")


def read_settings(lines: Iterable[str]) -> dict[str, Any]:
    """Return the mapping that the lines spell; every scalar stays the text it is, without its quotes.

    Raises ValueError, naming the line, for what is more of YAML than this.
    """
    root: dict[str, Any] = {}
    open_blocks: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    for number, line in enumerate(lines, 1):
        text = line.rstrip()
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        entry = _ENTRY.fullmatch(text)
        if not entry:
            raise ValueError(f"line {number}: cannot read {text.strip()!r}; write 'name: value'")
        indent = len(entry["indent"])
        while open_blocks[-1][0] >= indent:
            open_blocks.pop()
        block = open_blocks[-1][1]
        value = (entry["value"] or "").strip()
        block[_plain(entry["key"])] = _value(value) if value else {}
        if not value:
            open_blocks.append((indent, block[_plain(entry["key"])]))
    return root


def _value(text: str) -> str | list[str]:
    if text.startswith("[") and text.endswith("]"):
        return [_plain(part) for part in text[1:-1].split(",") if part.strip()]
    return _plain(text)


def _plain(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
