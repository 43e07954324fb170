"""Numbers as people read them: three digits that matter, a unit always, a real minus sign."""

from __future__ import annotations

from math import floor, log10

NBSP = "\u00a0"
MINUS = "\u2212"
MISSING = "\u2013"


def duration(seconds: float | None) -> str:
    """`84 ms`, `1.24 s`, `152 s`; a dash for None."""
    if seconds is None:
        return MISSING
    if abs(seconds) < 0.9995:
        return f"{significant(seconds * 1e3)}{NBSP}ms"
    return f"{significant(seconds)}{NBSP}s"


def signed_duration(seconds: float) -> str:
    """A difference: `+84 ms`, `\u22121.24 s`."""
    return f"{'+' if seconds > 0 else ''}{duration(seconds)}"


def tick(seconds: float) -> str:
    """A round duration for an axis: `0`, `50 ms`, `2 s`."""
    if seconds == 0:
        return "0"
    value, unit = (seconds * 1e3, "ms") if seconds < 0.9995 else (seconds, "s")
    return f"{value:g}{NBSP}{unit}"


def share(ratio: float | None) -> str:
    """`63 %`, with a decimal below 10 % and above 99 %."""
    if ratio is None:
        return MISSING
    percent = ratio * 100
    digits = 1 if 0 < percent < 9.95 or 99 <= percent < 100 else 0
    return f"{percent:.{digits}f}{NBSP}%"


def signed_share(ratio: float | None) -> str:
    """A relative error with its sign: `+5.5 %`."""
    if ratio is None:
        return MISSING
    return f"{signed(ratio * 100)}{NBSP}%"


def signed_points(difference: float | None) -> str:
    """`+1.2 pt`: the difference of two shares, in percentage points."""
    if difference is None:
        return MISSING
    return f"{_minus(f'{difference * 100:+.1f}')}{NBSP}pt"


def signed(value: float | None) -> str:
    """`+5.5`, `-12`: a number without a unit, one decimal while it is below ten."""
    if value is None:
        return ""
    digits = 1 if abs(value) < 9.95 else 0
    return _minus(f"{round(value, digits) + 0.0:+.{digits}f}")  # adding zero makes -0.0 positive


def significant(value: float) -> str:
    """Three significant digits, no exponent, no trailing point: `0.412`, `8.41`, `84.1`, `841`, `8,412`."""
    if value == 0:
        return "0"
    digits = max(0, 2 - floor(log10(abs(float(f"{value:.3g}")))))
    return _minus(f"{value:,.{digits}f}")


def fixed(value: float | None, decimals: int) -> str:
    """A number of a column that shows `decimals` everywhere."""
    return MISSING if value is None else _minus(f"{value:,.{decimals}f}")


def column_decimals(values: list[float | None]) -> int:
    """Return how many decimals a column needs so that its largest value shows three digits."""
    largest = max((abs(v) for v in values if v is not None), default=0.0)
    return 2 if largest < 10 else 1 if largest < 100 else 0


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
