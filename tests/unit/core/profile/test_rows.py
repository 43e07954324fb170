from __future__ import annotations

import pytest
from msgspec import Struct

from millrace.core.profile import read_rows


class Row(Struct):
    name: str
    count: int
    seconds: float


def test_cells_become_what_the_type_says_and_other_columns_are_left_alone() -> None:
    lines = ["seconds,name,more,count", "1.5,a,x,2", "2,b,,3"]
    assert list(read_rows(lines, Row)) == [Row("a", 2, 1.5), Row("b", 3, 2.0)]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["name,count,seconds", "a,1,1", "b,x,1"], r"line 3: .*`int`.*\$\.count"),
        (["name,count,seconds", "a,1"], r"line 2: .*`float`.*\$\.seconds"),
        (["name,seconds", "a,1"], "line 2: Object missing required field `count`"),
        (["name,count,seconds", "a,1,2,3"], "line 2: has more cells than the header has names"),
        (["name,count,seconds"], "has no rows below a header; is this the right file"),
        ([], "has no rows below a header"),
    ],
)
def test_what_does_not_fit_is_named_by_line_and_column(lines: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(read_rows(lines, Row))
