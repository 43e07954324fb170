"""`make check` is a line per check when all is well, and says what is wrong when it is not."""

from __future__ import annotations

import pytest

from check import CHECKS, Check


def test_a_check_that_passes_takes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert Check("style", ("python", "-c", "print('chatter')")).run()
    line = capsys.readouterr().out
    assert line.split()[:2] == ["style", "ok"]
    assert line.count("\n") == 1


def test_a_check_that_fails_shows_what_it_said_and_how_to_run_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not Check("style", ("python", "-c", "print('x.py:1: bad'); exit(1)")).run()
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert "x.py:1: bad" in said
    assert "again: python -c" in said


def test_every_check_has_a_name_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
