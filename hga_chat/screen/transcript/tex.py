r"""Draws TeX math with Unicode: ``x²``, ``(a + b)/c``, ``√(y + 1)``, ``∑ᵢ₌₁ⁿ i``.

No library does: unicodeit 0.7.5 writes ``\lim`` as ``łim`` and leaves fractions as they are, and
pylatexenc 2.11 writes ``\frac{a+b}{c}`` as ``a+b/c``.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from html.entities import html5

from hga_chat.documents.plain.linear_math import accented, bracketed, matrix, root, tidied

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\s+|\d+(?:\.\d+)?|.", re.DOTALL)
_MOST_CHARS, _DEEPEST = 4000, 40
# Many commands are named like the characters of HTML; these are not, or mean another character.
_SYMBOLS = {
    "\\": "\n", "{": "{", "}": "}", "$": "$", "%": "%", "&": "&", "#": "#", "_": "_", "|": "‖",
    "approxeq": "≊", "asymp": "≍", "backslash": "\\", "cdot": "·", "cdots": "⋯", "circ": "∘",
    "dag": "†", "dots": "…", "dotsb": "⋯", "dotsc": "…", "epsilon": "ε", "exists": "∃",
    "gets": "←", "implies": "⇒", "impliedby": "⇐", "infty": "∞", "land": "∧", "ldots": "…",
    "lnot": "¬", "lor": "∨", "lvert": "|", "rvert": "|", "lVert": "‖", "rVert": "‖", "neg": "¬",
    "neq": "≠", "owns": "∋", "partial": "∂", "phi": "φ", "star": "⋆", "surd": "√", "to": "→",
    "triangle": "△", "triangleq": "≜", "uplus": "⊎", "varepsilon": "ε", "varphi": "φ",
    "vdots": "⋮", "ddots": "⋱", "lbrace": "{", "rbrace": "}", "imath": "ı", "jmath": "ȷ",
}  # fmt: skip
_SPACES = {",", ";", ":", " ", ">", "~", "quad", "qquad", "enspace", "thinspace", "medspace"}
_FUNCTIONS = {
    "arccos", "arcsin", "arctan", "arg", "cos", "cosh", "cot", "coth", "csc", "deg", "det", "dim",
    "exp", "gcd", "hom", "inf", "ker", "lg", "lim", "liminf", "limsup", "ln", "log", "max", "min",
    "Pr", "sec", "sin", "sinh", "sup", "tan", "tanh", "argmax", "argmin",
}  # fmt: skip
_STYLES = {
    "text", "textbf", "textit", "textrm", "textsf", "texttt", "mathrm", "mathit", "mathbf",
    "mathsf", "mathtt", "mathcal", "mathfrak", "mathscr", "boldsymbol", "bm", "pmb", "mbox",
    "hbox", "operatorname", "operatorname*", "boxed",
}  # fmt: skip
_IGNORED = {
    "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "nonumber", "notag", "!",
    "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "Biggl",
    "Biggr", "bigm", "left", "right", "middle", "mathopen", "mathclose",
}  # fmt: skip
_FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac"}
_BINOMIALS = {"binom", "dbinom", "tbinom"}
_ACCENTS = {
    "hat": "^", "widehat": "^", "tilde": "~", "widetilde": "~", "bar": "¯", "overline": "¯",
    "dot": "˙", "ddot": "¨", "vec": "→", "check": "ˇ",
}  # fmt: skip
_ROWS = {
    "align", "aligned", "alignat", "eqnarray", "equation", "gather", "gathered", "split",
    "multline",
}  # fmt: skip
_BRACKETS = {
    "matrix": "()", "smallmatrix": "()", "pmatrix": "()", "bmatrix": "[]", "Bmatrix": "{}",
    "vmatrix": "||", "Vmatrix": "‖‖", "array": ("", ""), "cases": ("{ ", ""),
}  # fmt: skip
# What needs no brackets above a fraction bar or under a script; below a bar or a root.
_SCRIPTED = r"[²³¹ʰ-ˣ\u1d2c-\u1d6a\u2070-\u209cⱼⱽ′]*"
_TERM = re.compile(rf"√?[^\W_]+{_SCRIPTED}")
_ATOM = re.compile(rf"√?(?:[^\W\d_]|\d+){_SCRIPTED}")
_ROOTS = {"": "√", "2": "√", "3": "∛", "4": "∜"}
_INSIDE = re.compile(r"(?<=[(\[]) +| +(?=[)\]])")
_RAISED_AS_THEY_ARE = {"": "", "∘": "°", "′": "′", "*": "*", "∗": "*", "†": "†"}
_SMALL_LETTERS = (
    range(0xAA, 0xBB),
    range(0x2B0, 0x300),
    range(0x1D2C, 0x1DC0),
    range(0x2070, 0x20A0),
    range(0x2C7C, 0x2C7E),
)


class _UnreadableError(Exception):
    """The formula has something that cannot be drawn."""


@lru_cache(maxsize=512)
def drawn(source: str) -> str | None:
    """Return TeX math as text, one line for each row of aligned equations.

    Args:
        source: the formula, without its delimiters.

    Returns:
        None if it has a command that is not known, or unbalanced braces; it is then best shown as
        it is written.
    """
    if len(source) > _MOST_CHARS:
        return None
    try:
        text = _Reader(source).all()
    except (_UnreadableError, RecursionError):
        return None
    lines = [_INSIDE.sub("", tidied(line)) for line in text.split("\n")]
    return "\n".join(filter(None, lines)) or None


class _Reader:
    """Reads the tokens of a formula from left to right."""

    def __init__(self, source: str) -> None:
        self._tokens = _TOKEN.findall(source)
        self._at = 0
        self._depth = 0

    def all(self) -> str:
        """Return the whole formula."""
        text = self._until()
        if self._at < len(self._tokens):
            raise _UnreadableError
        return text

    @property
    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        sign = self._next
        if not sign:
            raise _UnreadableError
        self._at += 1
        return sign

    def _until(self, *ends: str) -> str:
        """Return what comes before one of the tokens ``ends``, or before the end of the formula."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _UnreadableError
        text, last = "", ""
        while self._next and self._next not in ends:
            name = self._next.removeprefix("\\")
            kind = "function" * (name in _FUNCTIONS) or "fraction" * (name in _FRACTIONS)
            piece = self._piece()
            # "sin x", "x sin y", "1/n x": letters and digits would run into each other.
            if (kind or last) and text[-1:].isalnum() and piece[:1] not in " ,.;:()[]{}=+−<>|/":
                text += " "
            text += piece
            last = kind
        self._depth -= 1
        return text

    def _piece(self) -> str:
        """Return the next atom with its scripts."""
        sign = self._next
        if sign.isspace():
            self._at += 1
            return " "
        is_group = sign == "{"
        base = "" if sign in "^_" else self._atom()
        scripts = ""
        while self._next and self._next in "^_'":
            sign = self._take()
            if sign == "'":
                scripts += "′"
                continue
            while self._next.isspace():
                self._at += 1
            scripts += _script(sign, self._atom())
        if scripts and is_group:
            base = bracketed(base, _TERM)
        return base + scripts

    def _atom(self) -> str:
        sign = self._take()
        if sign == "{":
            text = self._until("}")
            if self._take() != "}":
                raise _UnreadableError
            return text.strip()
        if sign in "}&^_":
            raise _UnreadableError
        if sign == "-":
            return "−"
        return self._command(sign.removeprefix("\\")) if sign[0] == "\\" else sign

    def _command(self, name: str) -> str:
        if name in _IGNORED:
            # "\left." has no bracket to draw.
            if name in ("left", "right", "middle") and self._next == ".":
                self._at += 1
            return ""
        if name in _SPACES:
            return "  " if "quad" in name else " "
        if name in _FRACTIONS:
            above, below = bracketed(self._argument(), _TERM), bracketed(self._argument(), _ATOM)
            return f"{above}/{below}"
        if name in _BINOMIALS:
            return f"({self._argument()} over {self._argument()})"
        if name == "sqrt":
            degree = self._option()
            radicand = self._argument()
            sign = _ROOTS.get(degree)
            return sign + bracketed(radicand, _ATOM) if sign else root(radicand, degree)
        if name in _ACCENTS:
            return accented(self._argument(), _ACCENTS[name])
        if name in _STYLES:
            return self._verbatim() if name.startswith(("text", "mbox")) else self._argument()
        if name == "mathbb":
            return "".join(map(_double_struck, self._argument()))
        if name == "not":
            return unicodedata.normalize("NFC", self._argument() + "\u0338")
        if name == "tag":
            return f"  ({self._argument()})"
        if name == "begin":
            return self._environment()
        if name in ("pmod", "bmod"):
            return f" (mod {self._argument()})" if name == "pmod" else " mod "
        if name in _FUNCTIONS:
            return name
        symbol = _SYMBOLS.get(name) or html5.get(f"{name};")
        if symbol is None:
            raise _UnreadableError
        if symbol.isalpha() and self._next.isspace() and self._at + 1 < len(self._tokens):
            # The space ends the command: "Δt", but "α + 1".
            self._at += self._tokens[self._at + 1].isalnum()
        return symbol

    def _argument(self) -> str:
        while self._next.isspace():
            self._at += 1
        return self._atom()

    def _option(self) -> str:
        """Return what stands in square brackets, if they come next."""
        if self._next != "[":
            return ""
        self._at += 1
        text = self._until("]")
        self._take()
        return text

    def _verbatim(self) -> str:
        """Return an argument that is text, with its spaces."""
        if self._next != "{":
            return self._argument()
        self._at += 1
        parts = []
        while (sign := self._take()) != "}":
            if sign == "{" or (sign[0] == "\\" and sign[1].isalpha()):
                raise _UnreadableError
            parts.append(sign.removeprefix("\\"))
        return "".join(parts)

    def _name(self) -> str:
        if self._take() != "{":
            raise _UnreadableError
        parts = []
        while (sign := self._take()) != "}":
            parts.append(sign)
        return "".join(parts).removesuffix("*")

    def _environment(self) -> str:
        name = self._name()
        if name not in _ROWS and name not in _BRACKETS:
            raise _UnreadableError
        if name in ("array", "alignat") and self._next == "{":
            self._name()  # the columns
        rows = list(self._table())
        if self._name() != name:
            raise _UnreadableError
        if name in _BRACKETS:
            left, right = _BRACKETS[name]
            return f"{left}{matrix(rows)}{right}"
        return "\n".join(matrix([row]) for row in rows)

    def _table(self) -> Iterator[list[str]]:
        """Yield rows of cells up to the end of an environment."""
        row: list[str] = []
        while True:
            row.append(self._until("&", "\\\\", "\\end"))
            sign = self._take()
            if sign == "&":
                continue
            yield row
            if sign == "\\end":
                return
            row = []


def _script(sign: str, text: str) -> str:
    """Return raised or lowered text, in small characters if there is one for each."""
    text = tidied(text)
    table = _small()[sign]
    bare = text.replace(" ", "")
    if bare and all(char in table for char in bare):
        return "".join(table[char] for char in bare)
    if text in _RAISED_AS_THEY_ARE:
        return _RAISED_AS_THEY_ARE[text]
    return sign + (text if len(text) == 1 else f"({text})")


@lru_cache(maxsize=1)
def _small() -> dict[str, dict[str, str]]:
    """Return the raised and lowered form of each character that has one."""
    tables: dict[str, dict[str, str]] = {"^": {}, "_": {}}
    signs = {"<super>": "^", "<sub>": "_"}
    for first, last in (
        (0xAA, 0xBA),
        (0x2B0, 0x2FF),
        (0x1D2C, 0x1DBF),
        (0x2070, 0x209F),
        (0x2C7C, 0x2C7D),
    ):
        for code in range(first, last + 1):
            kind, _, base = unicodedata.decomposition(chr(code)).partition(" ")
            if kind in signs and " " not in base:
                tables[signs[kind]][chr(int(base, 16))] = chr(code)
    return tables


def _double_struck(char: str) -> str:
    """Return a letter or digit as in ``ℝ``; other characters as they are."""
    kinds = (("DOUBLE-STRUCK CAPITAL", char), ("MATHEMATICAL DOUBLE-STRUCK CAPITAL", char))
    for kind, letter in kinds if "A" <= char <= "Z" else ():
        try:
            return unicodedata.lookup(f"{kind} {letter}")
        except KeyError:
            continue
    return char
