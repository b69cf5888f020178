"""Extracts the text of a PDF page as lines with positions.

pypdf decides where lines and words end. This module also keeps the position of each piece of text,
which pypdf passes to visitors, and its width, which follows from the font.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pypdf import PageObject
from pypdf.generic import (
    ArrayObject,
    ContentStream,
    DictionaryObject,
    FloatObject,
    NameObject,
)

from hga_chat.documents.pdf.fonts import Fonts

_SHOW_TEXT = frozenset({b"Tj", b"TJ", b"'", b'"'})
# An operation without effect that makes pypdf pass on the text gathered so far.
_FLUSH = ([FloatObject(value) for value in (1, 0, 0, 1, 0, 0)], b"cm")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_DOUBLE_SPACE = re.compile(r"(?<=\S)  (?=\S)")
_MIN_GAP = -100
_MAX_GAP_EM = 1.0
_MIN_SPACE_EM = 0.1


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line without a wide gap in it.

    Positions are in points, in the frame in which most of the page's text is upright: x to the
    right, y upwards. ``quarter`` counts quarter turns relative to that text. ``spaced`` says that
    the final space is a guess of pypdf, which ignores the word spacing of justified text.
    """

    text: str
    left: float
    right: float
    baseline: float
    size: float
    font: str
    quarter: int = 0
    spaced: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The text of the whole line."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def is_blank(self) -> bool:
        """Whether the line is empty or white space."""
        return not self.text.strip()

    @property
    def main(self) -> Piece:
        """The longest piece, whose font, size and baseline are taken for the line's."""
        return max(self.pieces, key=lambda piece: len(piece.text))


def extract_lines(page: PageObject, fonts: Fonts) -> list[Line]:
    """Return the lines of a page with pypdf's text and order, except for corrected spaces.

    Lines at an angle to most of the text, such as a stamp in the margin, come last.

    Raises:
        Exception: Whatever pypdf raises for a damaged page.
    """
    fonts.prepare(page)
    collected = _collect(page, fonts, apart=True)
    if any(_RIGHT_TO_LEFT.search(shown.text) for shown in collected):
        # pypdf orders these scripts only within one text that it passes on.
        collected = _collect(page, fonts, apart=False)
    lines = list(_lines(_upright(collected)))
    turned = [line for line in lines if line.pieces[0].quarter]
    return [line for line in lines if not line.pieces[0].quarter] + turned


@dataclass(frozen=True, slots=True)
class _Shown:
    """Text with the position of its start on the unrotated page."""

    text: str
    x: float
    y: float
    length: float
    size: float
    quarter: int
    font: str
    spaced: bool


class _Gatherer:
    """Visitors for pypdf that record text and its position."""

    def __init__(self, fonts: Fonts) -> None:
        self.found: list[_Shown] = []
        self._fonts = fonts
        self._waiting: list[tuple[Any, list[float] | None, float]] = []
        self._last: list[float] | None = None
        self._advance = 0.0
        self._word_space = 0.0
        self._saved: list[float] = []

    def before(self, operator: bytes, operands: Any, cm: list[float], tm: list[float]) -> None:
        """Record a string that will be shown, its position and its word spacing."""
        if operator in (b"Tw", b'"') and operands and isinstance(operands[0], int | float):
            self._word_space = float(operands[0])
        elif operator == b"q":
            self._saved.append(self._word_space)
        elif operator == b"Q" and self._saved:
            self._word_space = self._saved.pop()
        if operator in _SHOW_TEXT and operands:
            # The other operators first move to the next line.
            at = _product(tm, cm) if operator in (b"Tj", b"TJ") else None
            self._waiting.append((operands[-1], at, self._word_space))

    def text(
        self,
        text: str,
        cm: list[float],
        tm: list[float],
        font: DictionaryObject | None,
        size: float,
    ) -> None:
        """Record text with the strings shown for it."""
        m = _product(tm, cm)
        along, across = math.hypot(m[0], m[1]), math.hypot(m[2], m[3])
        begin, length, spaced = 0.0, 0.0, False
        if any(_stretches(what) for what, _, _ in self._waiting):
            # Justified text contains spaces, and pypdf adds more for the gaps next to them.
            text = _DOUBLE_SPACE.sub(" ", text)
        for number, (what, at, word_space) in enumerate(self._waiting):
            # At the same position, a string begins where the last one ended.
            if at is None or at != self._last:
                self._advance = 0.0
            self._last = at
            if number == 0:
                begin = self._advance + _lead(what) * size * along
            self._advance += self._fonts.width(what, font, size, word_space) * along
            moved = math.hypot(at[4] - m[4], at[5] - m[5]) if at is not None else 0.0
            length = max(length, moved + self._advance - begin)
            spaced = word_space > 0 and text.endswith(" ") and not _ends_with_space(what)
        self._waiting.clear()
        if not text:
            return
        x = m[4] + begin * (m[0] / along if along else 1.0)
        y = m[5] + begin * (m[1] / along if along else 0.0)
        name = str(font.get("/BaseFont", "")) if font is not None else ""
        height = abs(size) * across
        if not all(map(math.isfinite, (x, y, length, height, m[0], m[1]))):
            x = y = length = height = m[0] = m[1] = 0.0
        quarter = round(math.atan2(m[1], m[0]) / (math.pi / 2)) % 4
        self.found.append(_Shown(text, x, y, length, height, quarter, name, spaced))


def _lead(shown: Any) -> float:
    """Return the offset of the first string of a ``TJ`` operand, in units of the font size."""
    leads = isinstance(shown, ArrayObject) and shown and isinstance(shown[0], int | float)
    return -float(shown[0]) / 1000 if leads else 0.0


def _stretches(shown: Any) -> bool:
    """Whether a ``TJ`` operand contains gaps."""
    items = shown if isinstance(shown, ArrayObject) else ()
    return any(isinstance(item, int | float) and item < _MIN_GAP for item in items)


def _ends_with_space(shown: Any) -> bool:
    items = shown if isinstance(shown, ArrayObject) else [shown]
    strings = [item for item in items if isinstance(item, str | bytes)]
    return bool(strings) and strings[-1][-1:] in (b" ", " ")


def _collect(page: PageObject, fonts: Fonts, *, apart: bool) -> list[_Shown]:
    gatherer = _Gatherer(fonts)
    if not apart:
        page.extract_text(visitor_operand_before=gatherer.before, visitor_text=gatherer.text)
        return gatherer.found
    key = NameObject("/Contents")
    if key not in page:
        return []
    original = page.raw_get(key)
    content = ContentStream(original.get_object(), page.pdf, "bytes")
    content.operations = [step for operation in content.operations for step in _apart(operation)]
    page[key] = content
    try:
        page.extract_text(visitor_operand_before=gatherer.before, visitor_text=gatherer.text)
    finally:
        page[key] = original
    return gatherer.found


def _apart(operation: tuple[Any, bytes]) -> Iterator[tuple[Any, bytes]]:
    """Yield an operation so that its text is passed on separately, split at wide gaps."""
    operands, operator = operation
    if operator not in _SHOW_TEXT:
        yield operation
    elif operator != b"TJ" or not operands or not isinstance(operands[0], ArrayObject):
        yield _FLUSH
        yield operation
    else:
        part = ArrayObject()
        for item in operands[0]:
            if part and isinstance(item, int | float) and item < -1000 * _MAX_GAP_EM:
                yield _FLUSH
                yield [part], operator
                part = ArrayObject()
            part.append(item)
        yield _FLUSH
        yield [part], operator


def _product(m: Sequence[float], n: Sequence[float]) -> list[float]:
    return [
        m[0] * n[0] + m[1] * n[2],
        m[0] * n[1] + m[1] * n[3],
        m[2] * n[0] + m[3] * n[2],
        m[2] * n[1] + m[3] * n[3],
        m[4] * n[0] + m[5] * n[2] + n[4],
        m[4] * n[1] + m[5] * n[3] + n[5],
    ]


def _upright(collected: Sequence[_Shown]) -> Iterator[Piece]:
    """Rotate the page so that most of its characters are upright."""
    characters: Counter[int] = Counter()
    for shown in collected:
        characters[shown.quarter] += len(shown.text.strip())
    main = characters.most_common(1)[0][0] if characters else 0
    for shown in collected:
        x, y = shown.x, shown.y
        left, baseline = ((x, y), (y, -x), (-x, -y), (-y, x))[main]
        quarter = (shown.quarter - main) % 4
        right = left + shown.length
        yield Piece(
            shown.text, left, right, baseline, shown.size, shown.font, quarter, shown.spaced
        )


def _lines(pieces: Iterator[Piece]) -> Iterator[Line]:
    line: list[Piece] = []
    for piece in pieces:
        first, *others = piece.text.split("\n")
        _append(line, replace(piece, text=first))
        for text in others:
            if line:
                yield Line(tuple(line))
            line = []
            _append(line, replace(piece, text=text))
    if line:
        yield Line(tuple(line))


def _append(line: list[Piece], piece: Piece) -> None:
    """Add a piece to a line, joined to the last piece if no wide gap separates them."""
    if not piece.text:
        return
    last = line[-1] if line else None
    if (
        last is None
        or last.quarter != piece.quarter
        or abs(last.baseline - piece.baseline) > 0.5 * max(last.size, piece.size)
        or abs(piece.left - last.right) > _MAX_GAP_EM * max(last.size, piece.size)
    ):
        line.append(piece)
        return
    main = max(last, piece, key=lambda part: len(part.text))
    closes_up = last.spaced and piece.left - last.right < _MIN_SPACE_EM * last.size
    line[-1] = replace(
        main,
        text=(last.text[:-1] if closes_up else last.text) + piece.text,
        left=min(last.left, piece.left),
        right=max(last.right, piece.right),
        spaced=piece.spaced,
    )
