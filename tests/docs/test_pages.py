"""Whoever follows the documents to the letter gets what they promise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pages import ROOT, Block, pages, read
from tests.docs.reader import Reader, commands, missing

PAGES = [path.relative_to(ROOT).as_posix() for path in pages()]


@pytest.mark.parametrize("name", PAGES)
def test_everything_a_page_says_to_do_works(name: str, tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        for block in read(ROOT / name).blocks:
            reader.follow(block)


def test_a_command_that_fails_fails_the_page(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader, pytest.raises(AssertionError, match="exited with 3"):
        reader.follow(_console("$ exit 3\n"))


def test_a_command_may_be_meant_to_fail(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.follow(_console("$ exit 3\n", "exit=3"))


def test_output_that_does_not_come_fails_the_page(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader, pytest.raises(AssertionError, match="did not print 'two'"):
        reader.follow(_console("$ echo one\ntwo\n"))


def test_a_page_may_write_a_file_and_run_it(tmp_path: Path) -> None:
    with Reader(tmp_path) as reader:
        reader.follow(Block("python", ("file=hello.py",), "print('hello')\n", 1))
        reader.follow(_console("$ python hello.py\nhello\n"))


def test_a_program_that_stays_is_waited_for_and_ended(tmp_path: Path) -> None:
    serve = "$ python -u -c 'import os, time; print(os.getpid(), \"here\"); time.sleep(60)'\n... here\n"
    with Reader(tmp_path) as reader:
        reader.follow(_console(serve, "background"))
        process_id = int((tmp_path / "said.log").read_text().split()[0])
        os.kill(process_id, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


def test_a_block_holds_several_commands_with_their_output() -> None:
    found = commands(_console("$ one \\\n  more\nsaid\n$ two\n"))
    assert [(c.line, c.expected) for c in found] == [("one   more", ("said",)), ("two", ())]


@pytest.mark.parametrize(
    ("expected", "lost"),
    [
        (("one", "two"), None),
        (("one", "...", "three"), None),
        (("t...ee",), None),
        (("two", "one"), "one"),
        (("four",), "four"),
    ],
)
def test_expected_lines_come_in_order_with_others_between(
    expected: tuple[str, ...], lost: str | None
) -> None:
    assert missing(expected, "  one\ntwo\nthree  \n") == lost


def _console(text: str, *options: str) -> Block:
    return Block("console", options, text, 1)
