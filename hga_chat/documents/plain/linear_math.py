"""Writes formulas in one line: ``(a + b)/c``, ``x^2``, ``√(y + 1)``, ``∑_{i = 1}^n i``."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

# Function application, invisible times, separator and plus, and spaces without width.
INVISIBLE_OPERATORS = dict.fromkeys((0x2061, 0x2062, 0x2063, 0x2064, 0x200B, 0xFEFF))
# What needs no brackets: above a fraction bar, below it, and under a script.
_SCRIPTS = r"(?:[_^](?:[^\W_]|\d+|\{[^{}]*\}))*"
_TERM = re.compile(rf"[^\W_]+(?:[.,]\d+)?{_SCRIPTS}\W?|\W")
_ATOM = re.compile(rf"(?:[^\W_]|\d+(?:[.,]\d+)?){_SCRIPTS}\W?|\W")
_SINGLE = re.compile(r"[^\W_]+(?:[.,]\d+)?\W?|\W")
_SCRIPT = re.compile(r"[^\W_]|\d+|\W")
_WORD_END = re.compile(r"[\w)\]}∞]$")
_WORD_START = re.compile(r"[\w(\[{√∛∜∑∏∫]")
_ROOTS = {"": "√", "2": "√", "3": "∛", "4": "∜"}
# Marks over a letter, and the characters that combine with it.
_ACCENTS = {
    **dict.fromkeys("^ˆ", "\u0302"),
    **dict.fromkeys("~˜", "\u0303"),
    **dict.fromkeys("¯ˉ‾―_\u0305", "\u0304"),
    **dict.fromkeys("˙.", "\u0307"),
    "¨": "\u0308",
    "ˇ": "\u030c",
    "→": "\u20d7",
}
# What stands over several letters instead of a character that combines with one.
_WIDE = {"\u0302": "ˆ", "\u0303": "˜", "\u0304": "‾", "\u0305": "‾", "\u20d7": "→", "\u20d6": "←"}
_SPACED = re.compile(r"\s*([=<>≤≥≠≈≡∼≃≅∝→←↔⇒⇐⇔↦∈∉⊂⊆⊃⊇:]|:=)\s*")
_RELATION = re.compile(r"[=<>≤≥≠≈≡∼≃≅∝→⇒⇔∈]")
_OPENING = {"(": ")", "[": "]", "{": "}", "|": "|", "‖": "‖", "⟨": "⟩", "⌊": "⌋", "⌈": "⌉"}


def fraction(above: str, below: str) -> str:
    """Return a fraction."""
    return f"{bracketed(above, _TERM)}/{bracketed(below, _ATOM)}"


def stacked(above: str, below: str) -> str:
    """Return two rows without a bar, such as those of a binomial coefficient."""
    return f"{above.strip()} over {below.strip()}"


def root(radicand: str, degree: str = "") -> str:
    """Return a root."""
    degree = degree.strip()
    if degree in _ROOTS:
        return _ROOTS[degree] + bracketed(radicand, _ATOM)
    return f"root({degree}, {radicand.strip()})"


def scripts(base: str, lower: str = "", upper: str = "") -> str:
    """Return ``base`` with a subscript and a superscript, as in TeX."""
    return bracketed(base, _SINGLE) + _script("_", lower) + _script("^", upper)


def accented(base: str, mark: str) -> str:
    """Return ``base`` with a mark over it."""
    base, mark = base.strip(), mark.strip()
    single = _ACCENTS.get(mark, mark)
    if len(base) == 1 and len(single) == 1 and unicodedata.combining(single):
        return base + single
    base = base if len(base) < 2 or _is_bracketed(base) else f"({base})"
    return scripts(base, "", _WIDE.get(single, mark))


def matrix(rows: Iterable[Iterable[str]]) -> str:
    """Return the rows of a matrix or of aligned equations, columns between commas.

    A column that begins with a relation continues the one before, as does one after a comma.
    Columns without any text are space between equations.
    """
    table = [[cell.strip() for cell in row] for row in rows]
    used = {number for row in table for number, cell in enumerate(row) if cell}
    lines = []
    for row in table:
        line, last = "", ""
        for number, cell in enumerate(row):
            if number not in used:
                continue
            is_new = number and line.strip() and not _RELATION.match(cell) and last[-1:] != ","
            line += (", " if is_new else " " if number else "") + cell
            last = cell or last
        lines.append(line.rstrip(" ,").strip())
    return "; ".join(filter(None, lines))


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a formula, and whether letters and digits before or after it are kept apart."""

    text: str
    before: bool = False
    after: bool = False


def joined(parts: Iterable[Part]) -> str:
    """Join parts of a formula, with spaces where words and numbers would run into each other."""
    text, is_apart = "", False
    for part in parts:
        if not part.text:
            continue
        if (part.before or is_apart) and _WORD_END.search(text) and _WORD_START.match(part.text):
            text += " "
        text += part.text
        is_apart = part.after
    return text


def tidied(text: str) -> str:
    """Return a whole formula with spaces around its relations and none doubled."""
    return " ".join(_SPACED.sub(r" \1 ", text).split())


def bracketed(text: str, plain: re.Pattern[str]) -> str:
    """Return a part of a formula, in brackets unless it is ``plain`` or has them already."""
    text = text.strip()
    return text if not text or plain.fullmatch(text) or _is_bracketed(text) else f"({text})"


def _script(sign: str, text: str) -> str:
    text = tidied(text)
    if not text:
        return ""
    return sign + (text if _SCRIPT.fullmatch(text) else f"{{{text}}}")


def _is_bracketed(text: str) -> bool:
    """Whether one pair of brackets is around all of ``text``."""
    close = _OPENING.get(text[:1])
    if close is None or not text.endswith(close) or len(text) < 2:
        return False
    if close == text[0]:
        return text.count(close) == 2
    depth = 0
    for index, char in enumerate(text):
        depth += (char == text[0]) - (char == close)
        if depth == 0:
            return index == len(text) - 1
    return False
