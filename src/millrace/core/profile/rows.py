"""Rows of a table of comma-separated values, each checked against the fields of a type."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

T = TypeVar("T")
_EXTRA = "cells beyond the last column"


def read_rows(lines: Iterable[str], kind: type[T]) -> Iterator[T]:
    """Yield a `kind` for each row below the header; columns that are no field of it are left alone.

    Raises ValueError, naming the line and the column, for a row that does not fit, and for an empty table.
    """
    reader = csv.DictReader(lines, restkey=_EXTRA)
    number = 0
    for row in reader:
        number += 1
        if _EXTRA in row:
            raise ValueError(f"line {reader.line_num}: has more cells than the header has names")
        try:
            yield msgspec.convert(row, kind, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
    if not number:
        raise ValueError("has no rows below a header; is this the right file?")
