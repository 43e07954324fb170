"""The size check reports each habit it is there to prevent, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_sizes import Module, length, main, violations

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 60
SIX_ARGUMENTS = "def f(a, b, c, d, e, g): ...\n"
BROKEN = {
    "too many lines": ("src/m.py", "x = 1\n" * 301, "301 lines"),
    "a long function": ("tests/test_m.py", LONG_FUNCTION, "f has 61 lines"),
    "six positional parameters": ("src/m.py", SIX_ARGUMENTS, "takes 6 by position"),
    "a vague module": ("src/pkg/utils.py", "x = 1\n", "'utils' says nothing"),
    "a vague package": ("src/helpers/m.py", "x = 1\n", "'helpers' says nothing"),
    "a base class": ("src/m.py", "class BasePolicy: ...\n", "class BasePolicy"),
    "a manager": ("src/m.py", "class CacheManager: ...\n", "class CacheManager"),
    "a swallowed error": ("src/m.py", "try:\n    f()\nexcept Exception:\n    pass\n", "swallows"),
    "a bare except": ("src/m.py", "try:\n    f()\nexcept:\n    ...\n", "swallows"),
    "a suppressed error": ("src/m.py", "with suppress(Exception):\n    f()\n", "suppresses"),
    "a promise": ("src/m.py", "def f():\n    raise NotImplementedError\n", "NotImplementedError"),
    "a mock": ("tests/test_m.py", "from unittest.mock import MagicMock\n", "imports a mock"),
    "a mock fixture": ("tests/test_m.py", "def test_it(mocker): ...\n", "takes a mock"),
    "a patch": (
        "tests/test_m.py",
        "def test_it(monkeypatch):\n    monkeypatch.setattr(a, 'b', 1)\n",
        "patches",
    ),
    "a leftover": ("src/m.py", "x = 1  # TODO: more\n", "still to be done"),
    "a path of one machine": ("src/m.py", "HERE = '" + "/" + "work/main'\n", "somebody's own machine"),
    "a path in a page": ("docs/p.md", "see " + "/" + "tmp/x\n", "somebody's own machine"),
    "a leftover in a page": ("README.md", "TODO\n", "still to be done"),
    "long functions on average": ("src/m.py", "def f():\n" + "    x = 1\n" * 9, "the median function has 9"),
}
FINE = {
    "keyword-only parameters": ("src/m.py", "def f(self, a, b, c, d, e, *, g, h): ...\n"),
    "a test of many parameters": ("tests/test_m.py", "def test_it(a, b, c, d, e, g, h): ...\n"),
    "an expected error": ("src/m.py", "try:\n    f()\nexcept KeyError:\n    pass\n"),
    "an error passed on": ("src/m.py", "try:\n    f()\nexcept Exception as e:\n    log(e)\n    raise\n"),
    "a changed environment": (
        "tests/test_m.py",
        "def test_it(monkeypatch):\n    monkeypatch.setenv('A', '1')\n",
    ),
    "a name that merely starts alike": ("src/m.py", "class Baseline: ...\nclass Managers: ...\n"),
    "an address": ("docs/p.md", "[all](https://example.org/work/x) and docs/work.md\n"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_violation_is_reported_with_its_file(tmp_path: Path, case: str) -> None:
    path, text, expected = BROKEN[case]
    _write(tmp_path, path, text)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert expected in str(found[0])
    assert str(found[0]).startswith((f"{path}:", "src:"))


@pytest.mark.parametrize("case", FINE)
def test_what_is_allowed_is_not_reported(tmp_path: Path, case: str) -> None:
    _write(tmp_path, *FINE[case])
    assert violations(tmp_path) == []


def test_a_violation_names_its_line(tmp_path: Path) -> None:
    _write(tmp_path, "src/m.py", "x = 1\n\n\nclass PoolManager: ...\n")
    assert str(violations(tmp_path)[0]).startswith("src/m.py:4: ")


def test_large_data_is_reported(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with (tmp_path / "src" / "weights.bin").open("wb") as file:
        file.truncate(17 << 20)
    assert [v.path for v in violations(tmp_path)] == ["src", "src/weights.bin"]


def test_the_length_of_a_function_counts_only_its_code() -> None:
    module = Module(
        "m.py", 'def f():\n    """Say.\n\n    More.\n    """\n    a = 1\n\n    # why\n    return a\n'
    )
    assert length(module.functions[0], module.lines) == 2


def test_a_declaration_has_no_length() -> None:
    module = Module("m.py", 'def f():\n    """Say."""\n\ndef g(): ...\n')
    assert [length(f, module.lines) for f in module.functions] == [0, 0]


def test_the_command_prints_what_is_wrong_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "src/m.py", "def f():\n    return 1\n\n\nclass PoolManager: ...\n")
    assert main(tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "src/m.py:5: class PoolManager is named after its place, not its purpose",
        "1 violations; src has 5 lines, its median function 1",
    ]


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)
