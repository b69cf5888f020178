"""Writes MathML in one line, or the TeX that comes with it.

Format: MathML Core and MathML 3 (presentation markup).
"""

import re
from collections.abc import Sequence

from hga_chat.documents.html.tree import Element, Text
from hga_chat.documents.plain.linear_math import (
    INVISIBLE_OPERATORS,
    Part,
    accented,
    fraction,
    joined,
    matrix,
    root,
    scripts,
    stacked,
    tidied,
)

_MAX_DEPTH = 100
# What tells TeX from a description in words.
_TEX_SIGN = re.compile(r"[\\^_{}]")
_TEX_ENCODINGS = frozenset({"application/x-tex", "tex", "latex", "application/x-latex"})
_SPACED_OPERATORS = frozenset("+-−±∓×·⋅÷=<>≤≥≠≈≡∼≃≅∝→←↔⇒⇐⇔↦∈∉⊂⊆⊃⊇∪∩∧∨")
# What has nothing to add or subtract before it.
_SIGNS = frozenset("+-−±∓")
_BEFORE_SIGNS = _SPACED_OPERATORS | frozenset("([{,;")
_SCRIPTED = frozenset({"msub", "msup", "msubsup", "munder", "munderover"})
# How many children the elements of schemata have.
_PARTS = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "msubsup": 3}
_PARTS |= {"munder": 2, "mover": 2, "munderover": 3}
_NOT_SHOWN = frozenset({"annotation", "annotation-xml", "mphantom", "none", "mprescripts"})
_NO_LINE = frozenset({"0", "0px", "0pt", "0em", "0ex"})


def linear(math: Element) -> str:
    """Return the formula of a ``math`` element: TeX between dollar signs, or one line of text."""
    tex = _tex(math)
    if tex:
        return f"${tex}$"
    return tidied(_row(math.children, 0))


def _tex(math: Element) -> str:
    for element in math.descendants():
        if element.tag == "annotation":
            encoding = element.attributes.get("encoding", "").lower()
            if encoding in _TEX_ENCODINGS:
                return _one_line(element.text())
    text = _one_line(math.attributes.get("alttext", ""))
    return text if _TEX_SIGN.search(text) else ""


def _one_line(tex: str) -> str:
    return " ".join(tex.split()).strip("$ ")


def _row(children: "Sequence[Element | Text]", depth: int) -> str:
    parts: list[Part] = []
    for child in children:
        if isinstance(child, Text):
            parts.append(Part(_clean(child.data)))
            continue
        text = _written(child, depth)
        if child.tag == "mo" and text in _SPACED_OPERATORS:
            before = "".join(p.text for p in parts[-2:]).rstrip()
            is_sign = text in _SIGNS and before[-1:] in _BEFORE_SIGNS
            text = text if not before or is_sign else f" {text} "
        is_word = child.tag in {"mi", "mtext", "ms"} and len(text) > 1
        is_apart = is_word or child.tag == "mfrac" or text.startswith("lim_")
        parts.append(Part(text, is_apart, is_apart or child.tag in _SCRIPTED))
    return joined(parts)


def _clean(text: str) -> str:
    return " ".join(text.translate(INVISIBLE_OPERATORS).split())


def _written(element: Element, depth: int) -> str:
    """Return one element of a formula."""
    tag = element.tag
    if tag in _NOT_SHOWN:
        return ""
    if depth > _MAX_DEPTH:
        return _clean(element.text())
    if tag in {"mi", "mn", "mo", "ms"}:
        return _clean(element.text())
    if tag == "mtext":
        return element.text().translate(INVISIBLE_OPERATORS).replace("\n", " ")
    if tag == "mspace":
        return " "
    if tag == "mmultiscripts":
        return _multiscripts(element, depth)
    if tag in {"mtable", "mtr", "mlabeledtr"}:
        return _table(element, depth)
    if tag == "mfenced":
        return _fenced(element, depth)
    if tag == "semantics" or tag == "maction":
        first = next(element.elements(), None)
        return _written(first, depth + 1) if first is not None else ""
    if tag == "msqrt":
        return root(_row(element.children, depth + 1))
    if sum(1 for _ in element.elements()) != _PARTS.get(tag):
        return _row(element.children, depth + 1)
    parts = [_written(child, depth + 1) for child in element.elements()]
    if tag == "mfrac":
        has_line = element.attributes.get("linethickness", "").strip().lower() not in _NO_LINE
        return fraction(*parts) if has_line else stacked(*parts)
    if tag == "mroot":
        return root(*parts)
    if tag == "mover":
        return accented(*parts)
    return scripts(parts[0], "", parts[1]) if tag == "msup" else scripts(*parts)


def _multiscripts(element: Element, depth: int) -> str:
    """Return a base with scripts after it and, after ``mprescripts``, before it."""
    children = list(element.elements())
    split = next((n for n, c in enumerate(children) if c.tag == "mprescripts"), len(children))
    parts = [_written(child, depth + 1) for child in children]
    after, before = parts[1:split], parts[split + 1 :]
    base = parts[0] if parts else ""
    for lower, upper in zip(after[::2], after[1::2], strict=False):
        base = scripts(base, lower, upper)
    return (
        "".join(scripts("", *pair) for pair in zip(before[::2], before[1::2], strict=False)) + base
    )


def _table(element: Element, depth: int) -> str:
    rows = [element] if element.tag != "mtable" else list(element.elements())
    cells = [
        [_row(cell.children, depth + 2) for cell in row.elements()]
        if row.tag in {"mtr", "mlabeledtr"}
        else [_written(row, depth + 1)]
        for row in rows
    ]
    return matrix(cells)


def _fenced(element: Element, depth: int) -> str:
    attributes = element.attributes
    parts = [_written(child, depth + 1) for child in element.elements()]
    separators = "".join(attributes.get("separators", ",").split())
    inside = ""
    for number, part in enumerate(parts):
        if number and separators:
            inside += separators[min(number, len(separators)) - 1] + " "
        inside += part
    return attributes.get("open", "(") + inside + attributes.get("close", ")")
