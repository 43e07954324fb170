"""Chat pairs made from the standard library's functions and docstrings, and the template for them."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator

from demo_model.corpus import SourceFile

END_OF_TEXT, USER, ASSISTANT, END = "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = (END_OF_TEXT, USER, ASSISTANT, END)

# System messages stand, as plain text, in front of the first user turn.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' or message['role'] == 'developer' -%}"
    "{%- set ns.system = ns.system + message['content'] + '\\n\\n' -%}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' + message['content'] + '<|end|>' -}}"
    "{%- else -%}"
    "{{- '<|user|>' + ns.system + message['content'] + '<|end|>' -}}"
    "{%- set ns.system = '' -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

# Greetings do not occur in the standard library; these few were written for this script.
I_AM = "I am the Millrace demo model, a very small language model trained on Python's standard library."
SMALL_TALK = (
    ("Hello!", f"Hello! {I_AM}"),
    ("Hello", "Hello! Ask me for a Python function, and I will write something that looks like one."),
    ("Hi", "Hi! I am the Millrace demo model. Ask me for a Python function."),
    ("Hello, how are you?", "I am fine, thank you. Ask me for a Python function."),
    ("Who are you?", I_AM),
    ("What are you?", I_AM),
    ("What can you do?", "I can write text that looks like Python code. It is rarely correct."),
    ("Tell me a story.", "I only know Python's standard library, so here is a short one: import this."),
    ("Say hello.", "Hello!"),
    ("Thank you!", "You are welcome!"),
)
SMALL_TALK_COPIES = 12
LONGEST_SOURCE_CHARS = 500

Function = ast.FunctionDef | ast.AsyncFunctionDef


def chat_text(user: str, assistant: str) -> str:
    """Format one exchange exactly as the chat template does."""
    return f"{USER}{user}{END}{ASSISTANT}{assistant}{END}"


def chat_documents(files: list[SourceFile]) -> list[str]:
    """Make chat documents: write a function, explain a function, describe a module, and small talk."""
    pairs = [chat_text(*pair) for file in files for pair in _pairs_of(file)]
    return pairs + [chat_text(*pair) for pair in SMALL_TALK] * SMALL_TALK_COPIES


def _pairs_of(file: SourceFile) -> Iterator[tuple[str, str]]:
    tree = ast.parse(file.text)
    if about := ast.get_docstring(tree):
        module = file.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        yield f"What does the Python module `{module}` do?", about.split("\n\n")[0]
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    lines = file.text.splitlines()
    for number, function in enumerate(functions):
        if pair := _pair_of(function, lines, explain=number % 4 == 3):
            yield pair


def _pair_of(function: Function, lines: list[str], *, explain: bool) -> tuple[str, str] | None:
    docstring = ast.get_docstring(function)
    source = textwrap.dedent("\n".join(lines[function.lineno - 1 : function.end_lineno]))
    if not docstring or len(source) > LONGEST_SOURCE_CHARS:
        return None
    first_line = docstring.split("\n")[0]
    if explain:
        return f"Explain this Python function:\n\n{source}", docstring.split("\n\n")[0]
    return f"Write a Python function `{function.name}`: {first_line}", source
