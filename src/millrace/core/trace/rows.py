"""How the text of one row becomes values: tables of comma-separated columns and lines of JSON."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from math import isfinite
from typing import TypeVar

import msgspec

from millrace.core.trace.record import TraceError

T = TypeVar("T")
_FIELD = re.compile(r" - at `\$\.([^`\[.]+)")
_NAMED = re.compile(r"field `([^`]+)`")


class Row:
    """One row of a table, its cells by column name."""

    __slots__ = ("_cells", "_columns", "line")

    def __init__(self, line: int, columns: dict[str, int], cells: list[str]) -> None:
        self.line = line
        self._columns = columns
        self._cells = cells

    def text(self, name: str) -> str | None:
        """Return the cell, None if it is empty or there is no such column."""
        column = self._columns.get(name)
        return None if column is None else self._cells[column].strip() or None

    def whole(self, name: str) -> int:
        """Return the cell as a number of at least 0; `374.0` will do."""
        text = self.text(name) or ""
        if text.isdecimal():
            return int(text)
        number = _number(text)
        if number is None or number < 0 or not number.is_integer():
            raise self.error(name, text, "write a whole number of at least 0")
        return int(number)

    def real(self, name: str) -> float:
        """Return the cell as a finite number."""
        text = self.text(name) or ""
        number = _number(text)
        if number is None:
            raise self.error(name, text, "write a number")
        return number

    def error(self, name: str, text: str, fix: str) -> TraceError:
        """Return the error of a cell that does not say what it should."""
        return TraceError(self.line, name, f"cannot read {text!r}" if text else "is empty", fix)


def table(lines: Iterable[str], required: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows below the header, which must have the `required` columns in any order."""
    rows = _cells(lines)
    _, header = next(rows)
    columns = {name.strip().removeprefix("\ufeff"): i for i, name in enumerate(header)}
    for name in required:
        if name not in columns:
            raise TraceError(
                1, name, "the header lacks this column", f"name it in the first line, as {name!r}"
            )
    for line, cells in rows:
        if len(cells) != len(header):
            field = header[len(cells)] if len(cells) < len(header) else "row"
            fix = f"write as many as the header has, {len(header)}"
            raise TraceError(line, field, f"the row has {len(cells)} cells", fix)
        yield Row(line, columns, cells)


def _cells(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells; blank lines are skipped."""
    reader = csv.reader(lines)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise TraceError(reader.line_num, "row", str(error), "correct the row or delete it") from None


def json_rows(
    lines: Iterable[str], decoder: msgspec.json.Decoder[T], first: int = 1
) -> Iterator[tuple[int, T]]:
    """Yield each line's number, counted from `first`, and its object; blank lines are skipped."""
    for number, line in enumerate(lines, first):
        if text := line.strip().removeprefix("\ufeff"):
            yield number, json_row(number, text, decoder)


def json_row(number: int, text: str, decoder: msgspec.json.Decoder[T]) -> T:
    """Return one line's object."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        message = str(error)
        at = _FIELD.search(message) or _NAMED.search(message)
        problem = message.split(" - at `", maxsplit=1)[0]
        raise TraceError(number, at[1] if at else "row", problem, "correct it or delete the row") from None
    except msgspec.DecodeError as error:
        raise TraceError(number, "row", str(error), "write one JSON object in each line") from None


def csv_lines(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    """Yield the lines of a table, without line ends."""
    line: list[str] = []
    writer = csv.writer(_Sink(line))  # its own line end is what makes it quote line ends within cells
    for row in chain([header], rows):
        writer.writerow(row)
        yield line.pop().removesuffix("\r\n")


class _Sink:
    """What csv's writer takes for a file."""

    def __init__(self, line: list[str]) -> None:
        self.write = line.append


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None
