"""What may be compiled is what behaves the same afterwards; `make compiled` runs the tests on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from compiled_wheel import MODULES, SLOTS

SOURCES = Path(__file__).parents[3] / "src" / "millrace"
COMPILED = {SOURCES / folder / f"{name}.py" for folder, names in MODULES.items() for name in names}


def test_every_module_to_compile_is_there() -> None:
    assert [path for path in COMPILED if not path.is_file()] == []


def test_nothing_to_compile_defines_a_struct_whose_options_would_be_lost() -> None:
    structs = [(path.name, base) for path in COMPILED for _, base in inherited(path) if base == "Struct"]
    assert structs == []


def test_nobody_who_is_interpreted_inherits_from_what_is_compiled() -> None:
    compiled = {node.name for path in COMPILED for node in classes(path)}
    others = [path for path in SOURCES.rglob("*.py") if path not in COMPILED]
    heirs = [(path.name, name) for path in others for name, base in inherited(path) if base in compiled]
    assert heirs == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("@dataclass(slots=True, eq=False)", "@dataclass(eq=False)"),
        ("@dataclass(frozen=True, slots=True)", "@dataclass(frozen=True)"),
        ('class A:\n    __slots__ = ("a", "b")\n\n    x = 1\n', "class A:\n    x = 1\n"),
    ],
)
def test_slots_are_left_out_as_compiled_classes_have_them_anyway(before: str, after: str) -> None:
    assert SLOTS.sub("", before) == after


def classes(path: Path) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def inherited(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each class with each of its bases, by name."""
    for node in classes(path):
        for base in node.bases:
            yield node.name, ast.unparse(base)
