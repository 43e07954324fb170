"""Checks what a linter does not: sizes, names, and the habits this project does without.

    python scripts/check_sizes.py

Prints each violation as `path:line: message`, then the numbers. A function's *length* is its lines of code
after the signature and the docstring; its *extent* runs from `def` to its last line.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
CODE = ("src", "tests", "scripts", "benchmarks", "examples")
PROSE = ("docs", "changelog", "README.md", "CONTRIBUTING.md", "NOTICE")

FILE_LINES = 300
FUNCTION_LINES = 60
MEDIAN_LINES = 8
POSITIONAL = 5
DATA_FILE_BYTES = 12 << 20
DATA_BYTES = 16 << 20

VAGUE_MODULE = re.compile(r"(utils?|helpers?|common|misc)$")
VAGUE_CLASS = re.compile(r"Base([A-Z]|$)|.*(Manager|Helper|Utils?)$")
LEFTOVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XXX)\b")
THIS_MACHINE = re.compile(r"(?<![\w.])/(work|tmp)\b")
BROAD = {"Exception", "BaseException"}
MOCKS = {"mock", "Mock", "MagicMock", "AsyncMock", "mocker"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Violation:
    """Where a rule is broken, and how."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Module:
    """A Python file: where it is, what it says, and its syntax tree."""

    path: str
    text: str

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text, self.path)))

    @cached_property
    def functions(self) -> list[Function]:
        return [n for n in self.nodes if isinstance(n, Function)]

    def at(self, node: ast.AST | int, message: str) -> Violation:
        """Return a violation at this node or line."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return Violation(self.path, line, message)


def length(function: Function, lines: list[str]) -> int:
    """Count a function's lines of code after its docstring; 0 for a mere declaration."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body or all(_is_ellipsis(statement) for statement in body):
        return 0
    code = (line.strip() for line in lines[body[0].lineno - 1 : function.end_lineno])
    return sum(bool(line) and not line.startswith("#") for line in code)


def sizes(module: Module) -> Iterator[Violation]:
    """Files, functions and lists of positional parameters must stay small."""
    if len(module.lines) > FILE_LINES:
        yield module.at(1, f"{len(module.lines)} lines; a file has at most {FILE_LINES}")
    for function in module.functions:
        extent = (function.end_lineno or 0) - function.lineno + 1
        if extent > FUNCTION_LINES:
            yield module.at(function, f"{function.name} has {extent} lines; at most {FUNCTION_LINES}")
        takes = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        positional = len(takes) - (takes[:1] in (["self"], ["cls"]))
        if positional > POSITIONAL and not function.name.startswith("test_"):  # pytest calls by name
            yield module.at(function, f"{function.name} takes {positional} by position; at most {POSITIONAL}")


def vague_names(module: Module) -> Iterator[Violation]:
    """A name says what a thing is for, not that it is useful."""
    for part in Path(module.path).with_suffix("").parts:
        if VAGUE_MODULE.match(part):
            yield module.at(1, f"{part!r} says nothing; name the module after what it holds")
    for node in module.nodes:
        if isinstance(node, ast.ClassDef) and VAGUE_CLASS.match(node.name):
            yield module.at(node, f"class {node.name} is named after its place, not its purpose")


def swallowed_errors(module: Module) -> Iterator[Violation]:
    """Every exception but the expected ones must be seen by somebody."""
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and all(map(_is_nothing, node.body)):
            yield module.at(node, "swallows every exception; name the ones you expect")
        if isinstance(node, ast.Call) and _name(node.func) == "suppress" and any(map(_is_broad, node.args)):
            yield module.at(node, "suppresses every exception; name the ones you expect")
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            yield module.at(node, "raises NotImplementedError; leave out what does not exist")


def mocks(module: Module) -> Iterator[Violation]:
    """Tests use fakes at real seams, real sockets and real files."""
    for node in module.nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {part for alias in node.names for part in alias.name.split(".")}
            names |= set((getattr(node, "module", None) or "").split("."))
            if names & MOCKS:
                yield module.at(node, "imports a mock; use a fake from millrace.testing or the real thing")
        if isinstance(node, ast.arg) and node.arg == "mocker":
            yield module.at(node, "takes a mock; use a fake from millrace.testing or the real thing")
        if isinstance(node, ast.Attribute) and node.attr == "setattr" and _name(node.value) == "monkeypatch":
            yield module.at(node, "patches code under test; pass what varies as an argument")


def leftovers(module: Module) -> Iterator[Violation]:
    """Comments are for the reader; what is still to be done belongs in the issue tracker."""
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and LEFTOVER.search(token.string):
            yield module.at(token.start[0], "says what is still to be done; open an issue instead")


def foreign_paths(path: str, text: str) -> Iterator[Violation]:
    """Nothing refers to the machine it was written on."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := THIS_MACHINE.search(line):
            yield Violation(path, number, f"names {found[0]!r}, a path of somebody's own machine")


RULES = (sizes, vague_names, swallowed_errors, mocks, leftovers)


def modules(root: Path) -> list[Module]:
    """Read every Python file of the checkout."""
    found = sorted(path for folder in CODE for path in (root / folder).rglob("*.py"))
    return [Module(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")) for path in found]


def prose(root: Path) -> Iterator[Violation]:
    """Check the documents for what code must not hold either."""
    pages = [p for name in PROSE for p in ([root / name] if "." in name else (root / name).rglob("*.md"))]
    for page in sorted(p for p in pages if p.is_file()):
        path, text = page.relative_to(root).as_posix(), page.read_text(encoding="utf-8")
        yield from foreign_paths(path, text)
        for number, line in enumerate(text.splitlines(), 1):
            if LEFTOVER.search(line):
                yield Violation(path, number, "says what is still to be done; open an issue instead")


def data_sizes(root: Path) -> Iterator[Violation]:
    """What the wheel carries besides code stays small enough to install anywhere."""
    files = [p for p in (root / "src").rglob("*") if p.is_file() and p.suffix not in {".py", ".pyc"}]
    taken = {p.relative_to(root).as_posix(): p.stat().st_size for p in files}
    for path, size_bytes in sorted(taken.items()):
        if size_bytes > DATA_FILE_BYTES:
            yield Violation(path, 1, f"{size_bytes} bytes; a data file has at most {DATA_FILE_BYTES}")
    if sum(taken.values()) > DATA_BYTES:
        yield Violation("src", 1, f"{sum(taken.values())} bytes of data; at most {DATA_BYTES}")


def median_length(found: list[Module]) -> float:
    """Return the median length of the functions in src that do something."""
    counts = [length(f, m.lines) for m in found if m.path.startswith("src/") for f in m.functions]
    return median([n for n in counts if n] or [0])


def violations(root: Path) -> list[Violation]:
    """Return everything that breaks a rule in this checkout."""
    found = modules(root)
    broken = [v for module in found for rule in RULES for v in rule(module)]
    broken += [v for module in found for v in foreign_paths(module.path, module.text)]
    if (typical := median_length(found)) > MEDIAN_LINES:
        broken.append(
            Violation("src", 1, f"the median function has {typical:g} lines; at most {MEDIAN_LINES}")
        )
    return sorted([*broken, *prose(root), *data_sizes(root)])


def main(root: Path = ROOT) -> int:
    """Print what is wrong and how large things are; return the exit status."""
    broken, found = violations(root), modules(root)
    for violation in broken:
        print(violation)
    lines = sum(len(m.lines) for m in found if m.path.startswith("src/"))
    print(f"{len(broken)} violations; src has {lines} lines, its median function {median_length(found):g}")
    return 1 if broken else 0


def _name(node: ast.AST) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _is_broad(node: ast.AST | None) -> bool:
    return node is None or _name(node) in BROAD


def _is_ellipsis(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and getattr(statement.value, "value", None) is ...


def _is_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass | ast.Continue) or _is_ellipsis(statement)


if __name__ == "__main__":
    sys.exit(main())
