"""Writes the text of Word's runs: symbols, raised and lowered text, fields, formulas.

Format: ECMA-376, WordprocessingML (part 1, sections 17.3.2 and 17.16).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from hga_chat.documents.plain.scripts import script
from hga_chat.documents.plain.symbol_fonts import PRIVATE_CODES, is_symbol_font, shown_symbol
from hga_chat.documents.plain.xml_lookup import child, local, value
from hga_chat.documents.zipped.docx_numbering import NoteNumbers
from hga_chat.documents.zipped.omml import linear, linear_field

_OFF = frozenset({"0", "off", "false", "none"})
_SHIFTS = {"superscript": 1, "subscript": -1, "baseline": 0}
# Raised by at least so many half-points, and so few characters, text is an index or exponent.
_MIN_POSITION = 3
_MAX_POSITIONED = 12
_SYMBOL_FIELD = re.compile(
    r"""SYMBOL\s+(0x[0-9a-f]{1,5}|\d{1,6})\b(?:.*\\f\s*"?([^"\\]+))?""", re.IGNORECASE
)
# Deleted text, fallbacks for content that is also there in full, and properties.
LEFT_OUT = frozenset(
    {
        "del",
        "moveFrom",
        "Fallback",
        "commentReference",
        "delText",
        "rPr",
        "pPr",
        "tblPr",
        "trPr",
        "tcPr",
        "sectPr",
        "sdtPr",
        "rubyPr",
        "tblGrid",
    }
)


@dataclass(frozen=True)
class RunFormat:
    """What of a run's properties changes what it says; None is not set."""

    font: str | None = None
    shift: int | None = None
    """1 raised, -1 lowered."""
    position: int | None = None
    """Half-points above the line."""
    is_struck: bool | None = None
    is_hidden: bool | None = None

    def over(self, base: "RunFormat") -> "RunFormat":
        """Return this format with what it does not set from ``base``."""
        own = {name: given for name, given in vars(self).items() if given is not None}
        return replace(base, **own)


def run_format(properties: Any) -> RunFormat:
    """Return the format of an ``rPr`` element; None sets nothing."""
    if properties is None:
        return RunFormat()
    fonts = child(properties, "rFonts")
    position = value(child(properties, "position")) or ""
    return RunFormat(
        font=value(fonts, "ascii") or value(fonts, "hAnsi"),
        shift=_SHIFTS.get(value(child(properties, "vertAlign")) or ""),
        position=int(position) if re.fullmatch(r"-?\d{1,4}", position) else None,
        is_struck=_first(_toggle(properties, "strike"), _toggle(properties, "dstrike")),
        is_hidden=_toggle(properties, "vanish"),
    )


def _toggle(properties: Any, name: str) -> bool | None:
    found = child(properties, name)
    return None if found is None else (value(found) or "true").lower() not in _OFF


def _first(*settings: bool | None) -> bool | None:
    return next((setting for setting in settings if setting is not None), None)


@dataclass(frozen=True)
class _Piece:
    text: str
    shift: int = 0
    is_struck: bool = False


@dataclass
class _Field:
    code: str = ""
    is_replaced: bool = False
    """Whether the text that the code stands for has been written instead of the result."""


class Runs:
    """Writes the runs of paragraphs.

    Args:
        styles: Run formats by the names of character styles.
        notes: Numbers the footnotes and endnotes.
    """

    def __init__(self, styles: Mapping[str, RunFormat], notes: NoteNumbers) -> None:
        self._styles = styles
        self._notes = notes
        self._fields: list[_Field] = []
        """The open fields, innermost last."""
        self.left_out: Counter[str] = Counter()

    def text(self, paragraph: Any, base: RunFormat) -> str:
        """Return the text of a paragraph whose style has the run format ``base``."""
        self._fields.clear()
        pieces = self._pieces(paragraph, base)
        is_mixed = any(not piece.shift and piece.text.strip() for piece in pieces)
        text = ""
        for (shift, is_struck), group in groupby(pieces, lambda p: (p.shift, p.is_struck)):
            part = "".join(piece.text for piece in group)
            if shift and is_mixed:
                part = script(part, shift)
            text += _struck(part) if is_struck else part
        return text

    def _pieces(self, element: Any, base: RunFormat) -> list[_Piece]:
        """Return the pieces of an element; a run's properties apply to all of it."""
        pieces: list[_Piece] = []
        for part in element:
            name = local(part)
            if name == "r" and not _is_math(part):
                pieces += self._run(part, base)
            elif name in {"oMath", "oMathPara"}:
                pieces.append(_Piece(linear(part)))
            elif name == "fldSimple":
                code = self._field_text(value(part, "instr") or "")
                pieces += [_Piece(code)] if code else self._pieces(part, base)
            elif name == "p":  # in a text box
                pieces += [_Piece("\n"), *self._pieces(part, base), _Piece("\n")]
            elif name == "ruby":
                pieces += self._ruby(part, base)
            elif name == "docPr" and part.get("descr"):
                pieces.append(_Piece(f"[image: {' '.join(part.get('descr').split())}]"))
            elif name == "imagedata" and part.getparent().get("alt"):
                pieces.append(_Piece(f"[image: {' '.join(part.getparent().get('alt').split())}]"))
            else:
                self._count(part, name)
                if name not in LEFT_OUT:
                    pieces += self._pieces(part, base)
        return pieces

    def _run(self, run: Any, base: RunFormat) -> list[_Piece]:
        properties = child(run, "rPr")
        style = self._styles.get(value(child(properties, "rStyle")) or "", RunFormat())
        form = run_format(properties).over(style.over(base))
        pieces: list[_Piece] = []
        for part in _run_parts(run):
            is_replaced = any(field.is_replaced for field in self._fields)
            text = self._run_part(part, local(part), form)
            if text is None:
                pieces += self._pieces([part], form)
            elif form.is_hidden:
                self.left_out["hidden text"] += bool(text.strip())
            elif text and not is_replaced:
                pieces.append(_Piece(text, _shift(form, text), bool(form.is_struck)))
        return pieces

    def _run_part(self, part: Any, name: str, form: RunFormat) -> str | None:
        """Return the text of a part of a run; None if it is none that has text of its own."""
        if name == "t":
            return _in_font(part.text or "", form.font)
        if name in {"sym", "symEx"}:
            code = value(part, "char") or ""
            is_code = re.fullmatch(r"[0-9A-Fa-f]{1,6}", code)
            return shown_symbol(value(part, "font") or "", int(code, 16)) if is_code else ""
        if name in {"tab", "ptab"}:
            return "\t"
        if name in {"br", "cr"}:
            return "\n" if value(part, "type") is None else " "
        if name == "noBreakHyphen":
            return "-"
        if name in {"footnoteReference", "endnoteReference"}:
            return self._notes.mark(name.removesuffix("Reference"), part)
        if name == "instrText":
            if self._fields:
                self._fields[-1].code += part.text or ""
            return ""
        return self._field_part(part) if name == "fldChar" else None

    def _field_part(self, part: Any) -> str:
        """Begin, separate or end a field; return what is shown of it besides its result."""
        kind = value(part, "fldCharType")
        if kind == "begin":
            self._fields.append(_Field())
            return _control(child(part, "ffData"))
        if not self._fields:
            return ""
        field = self._fields[-1] if kind == "separate" else self._fields.pop()
        if field.is_replaced:
            return ""
        text = self._field_text(field.code)
        field.is_replaced = bool(text)
        return text

    def _field_text(self, code: str) -> str:
        """Return what a field shows that has no result; empty for others."""
        found = _SYMBOL_FIELD.match(code.strip())
        if not found:
            return linear_field(code)
        number = int(found[1], 16 if found[1][:2].lower() == "0x" else 10)
        return shown_symbol((found[2] or "Symbol").strip(), number)

    def _ruby(self, ruby: Any, base: RunFormat) -> list[_Piece]:
        above = "".join(piece.text for piece in self._pieces(child(ruby, "rt") or (), base))
        pieces = self._pieces(child(ruby, "rubyBase") or (), base)
        return [*pieces, _Piece(f"({above})")] if above.strip() else pieces

    def _count(self, part: Any, name: str) -> None:
        """Count what is left out."""
        kind = {
            "commentReference": "comments",
            "object": "embedded objects",
            "chart": "charts",
            "relIds": "diagrams",
            "altChunk": "embedded documents",
        }.get(name)
        if name in {"del", "moveFrom"} and any(local(e) == "delText" for e in part.iter()):
            kind = "tracked deletions"
        elif (name == "docPr" and any(local(e) == "blip" for e in part.getparent().iter())) or (
            name == "imagedata" and not any(local(e) == "object" for e in part.iterancestors())
        ):
            kind = "images without a description"
        if kind:
            self.left_out[kind] += 1


def _run_parts(run: Any) -> Iterator[Any]:
    """Yield the parts of a run, of alternatives the one in full."""
    for part in run:
        if local(part) in {"AlternateContent", "Choice"}:
            yield from _run_parts(part)
        else:
            yield part


def _is_math(run: Any) -> bool:
    return "/math" in run.tag


def _struck(text: str) -> str:
    bare = text.strip()
    return text.replace(bare, f"~~{bare}~~") if bare else text


def _shift(form: RunFormat, text: str) -> int:
    if form.shift is not None:
        return form.shift
    position = form.position or 0
    if abs(position) < _MIN_POSITION or len(text) > _MAX_POSITIONED:
        return 0
    return 1 if position > 0 else -1


def _in_font(text: str, font: str | None) -> str:
    """Return what text shows in a font, which may be one of symbols."""
    if font is None or not is_symbol_font(font):
        if not any(ord(char) in PRIVATE_CODES for char in text):
            return text
        font = "Symbol"
        codes = PRIVATE_CODES
    else:
        codes = range(0x21, 0xF100)
    return "".join(shown_symbol(font, ord(char)) if ord(char) in codes else char for char in text)


def _control(data: Any) -> str:
    """Return the state of a form's check box or list."""
    box, choices = child(data, "checkBox"), child(data, "ddList")
    if box is not None:
        state = _first(_toggle(box, "checked"), _toggle(box, "default"))
        return "☑ " if state else "☐ "
    if choices is None:
        return ""
    entries = [value(entry) or "" for entry in choices if local(entry) == "listEntry"]
    given = value(child(choices, "result")) or value(child(choices, "default")) or "0"
    chosen = int(given) if given.isdecimal() else 0
    return entries[chosen] if chosen < len(entries) else ""
