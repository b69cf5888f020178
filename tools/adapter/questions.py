"""Questions about texts that the texts' own structure answers."""

import ast
import itertools
import random
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tools.adapter.facts import Question

_HEADING = re.compile(r"^(#{1,4}) +(\S.*)$", re.MULTILINE)
_MOST_COPIED_LINES, _MOST_SHOWN = 24, 160


@dataclass(frozen=True)
class Placed:
    """A question and the span of characters that answers it, where nothing may be planted."""

    asked: Question
    start: int
    end: int


def about(text: str, path: str, kind: str, draw: random.Random) -> list[Placed]:
    """Return questions about one text, shuffled.

    Args:
        text: as it is read, perhaps cut short.
        path: that introduces it.
        kind: code, manual or prose.
        draw: of wordings and of what is asked.
    """
    made = list(_about_lines(text, path, draw))
    if kind == "code":
        made += _about_code(text, path, draw)
    else:
        made += _about_headings(text, path)
    return made


def _about_lines(text: str, path: str, draw: random.Random) -> Iterator[Placed]:
    """Yield questions for the line after another, and for the continuation of a passage."""
    lines = text.splitlines(keepends=True)
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line)
    counts = Counter(line.strip() for line in lines)
    asked = [
        number
        for number in range(len(lines) - 3)
        if 24 <= len(lines[number].strip()) <= _MOST_SHOWN and counts[lines[number].strip()] == 1
    ]
    for number in draw.sample(asked, min(len(asked), 1 + len(text) // 8_000)):
        line, follows = lines[number].strip(), lines[number + 1].strip()
        end = starts[number + 3]
        if 8 <= len(follows) <= _MOST_SHOWN and draw.random() < 0.4:
            question = f"Which line follows this line in {path}?\n{line}"
            yield Placed(Question(question, follows), starts[number], end)
            continue
        rest = "".join(lines[number + 1 : number + draw.choice((3, 4, 5))]).rstrip()
        if len(rest) >= 24 and starts[number] + len(line) + len(rest) < len(text):
            end = starts[number] + len(lines[number]) + len(rest)
            question = draw.choice(("Go on with this passage:", "Continue this text:"))
            asked_for = Question(f"{question}\n{lines[number].rstrip()}", rest.lstrip("\n"))
            yield Placed(asked_for, starts[number], end)


def _about_headings(text: str, path: str) -> Iterator[Placed]:
    headings = list(_HEADING.finditer(text))
    counts = Counter(heading[2] for heading in headings)
    for heading, following in itertools.zip_longest(headings, headings[1:]):
        below = text[heading.end() : following.start() if following else len(text)]
        sentence = re.match(r"\s*([A-Z][^\n]{20,180}?[.:])\s", below)
        if counts[heading[2]] == 1 and sentence and len(heading[2]) < 80:
            question = f"What is the first sentence under the heading {heading[2]}?"
            end = heading.end() + sentence.end()
            yield Placed(Question(question, sentence[1]), heading.start(), end)
        if counts[heading[2]] == 1 and following and len(heading[2]) < 80:
            question = f"Which heading follows {heading[2]} in {path}?"
            yield Placed(Question(question, following[2]), heading.start(), following.end())


def _about_code(text: str, path: str, draw: random.Random) -> Iterator[Placed]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parse(text)
    except (ValueError, RecursionError, MemoryError):
        return
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    if "\f" in text or len(starts) != text.count("\n") + 1 + (not text.endswith("\n")):
        return  # lines are counted in another way than Python's
    named = Counter(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )
    for node in tree.body:
        begin, end = starts[node.lineno - 1], starts[node.end_lineno or node.lineno]
        for asked in _about_node(node, text, path, draw):
            yield Placed(asked, begin, min(end, begin + 1_500))
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and named[inner.name] == 1:
                    begin = starts[inner.lineno - 1]
                    for asked in _about_function(inner, text, path, draw):
                        yield Placed(asked, begin, starts[inner.end_lineno or inner.lineno])


def _parse(text: str) -> ast.Module:
    """Return the syntax tree of a file, or of the longest beginning that parses."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        lines = text.splitlines(keepends=True)[: max((error.lineno or 1) - 1, 0)]
    starts = [n for n, line in enumerate(lines) if line[:1].isidentifier() or line[:1] == "@"]
    for start in reversed(starts[-6:]):
        try:
            return ast.parse("".join(lines[:start]))
        except SyntaxError:
            continue
    raise ValueError("no Python")


def _about_node(node: ast.stmt, text: str, path: str, draw: random.Random) -> Iterator[Question]:
    if isinstance(node, ast.FunctionDef):
        yield from _about_function(node, text, path, draw)
    elif isinstance(node, ast.ClassDef):
        name = node.name
        yield Question(f"In which file is the class {name} defined?", path)
        if node.bases:
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            yield Question(
                f"Which class does {name} inherit from?", f"{name} inherits from {bases}."
            )
        methods = [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]
        if 1 < len(methods) < 8:
            yield Question(f"Which methods does the class {name} have?", ", ".join(methods))
        yield from _about_docstring(node, f"the class {name}")
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name, value = node.targets[0].id, ast.get_source_segment(text, node.value) or ""
        if len(name) > 3 and 0 < len(value) <= 80 and "\n" not in value and name != "__all__":
            yield Question(f"What is the value of {name} in {path}?", f"{name} is {value}.")


def _about_function(
    node: ast.FunctionDef, text: str, path: str, draw: random.Random
) -> Iterator[Question]:
    name, found = node.name, node.args
    if len(name) < 4 or name.startswith("__"):
        return
    if draw.random() < 0.4:
        yield Question(f"In which file is the function {name} defined?", path)
    names = [one.arg for one in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    if 0 < len(names) < 9:
        answer = f"The parameters of {name} are {', '.join(names)}."
        yield Question(f"What are the parameters of {name}?", answer)
    defaults = [
        *zip((*found.posonlyargs, *found.args)[::-1], found.defaults[::-1], strict=False),
        *zip(found.kwonlyargs, found.kw_defaults, strict=True),
    ]
    shown = [(one.arg, ast.unparse(value)) for one, value in defaults if value is not None]
    shown = [(one, value) for one, value in shown if len(value) < 40]
    if shown:
        one, value = draw.choice(shown)
        answer = f"The default value of {one} in {name} is {value}."
        yield Question(f"What is the default value of {one} in {name}?", answer)
    yield from _about_docstring(node, name)
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    source = ast.get_source_segment(text, node, padded=True)
    if lines <= _MOST_COPIED_LINES and source and draw.random() < 0.3:
        yield Question(f"Show me the function {name}.", f"```python\n{source.rstrip()}\n```")


def _about_docstring(node: ast.FunctionDef | ast.ClassDef, name: str) -> Iterator[Question]:
    lines = (ast.get_docstring(node) or "").strip().splitlines()
    if lines and 16 <= len(lines[0]) <= _MOST_SHOWN:
        yield Question(f"What is the first line of the docstring of {name}?", lines[0])
