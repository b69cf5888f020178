"""The text of a PDF page as lines that know where they stand on it.

pypdf decides what is a line and where words part. Beside its text this keeps each piece's place,
which it tells to visitors, and its width, which follows from the font.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pypdf import PageObject
from pypdf.generic import (
    ArrayObject,
    ContentStream,
    DecodedStreamObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NumberObject,
)
from pypdf.generic._font import Font

_SHOW_TEXT = frozenset({b"Tj", b"TJ", b"'", b'"'})
# Changes nothing, but pypdf hands over what it has gathered so far.
_HAND_OVER = ([FloatObject(value) for value in (1, 0, 0, 1, 0, 0)], b"cm")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_MAX_GAP_EM = 1.0
_UNUSED_CODE = 0xFFFF
_SPACE_WIDTH = 250


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of one line without a wide gap in it.

    Places are in points, in the frame in which most of the page's text is upright: x to the
    right, y upwards. ``quarter`` counts the quarter turns against that text.
    """

    text: str
    left: float
    right: float
    baseline: float
    size: float
    font: str
    quarter: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The line as it reads."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is to be seen of it."""
        return not self.text.strip()

    @property
    def main(self) -> Piece:
        """The longest piece, which stands for the line's font, size and baseline."""
        return max(self.pieces, key=lambda piece: len(piece.text))


class Fonts:
    """The fonts of a document; each is looked at once."""

    def __init__(self) -> None:
        self._fonts: dict[int, tuple[DictionaryObject, Font | None]] = {}

    def prepare(self, page: PageObject) -> None:
        """Give a space to the page's fonts that have none, so that pypdf sees where words part.

        Without one it takes for the width of a space that of whatever glyph has its number.
        """
        try:
            resources = page.get("/Resources", {}).get_object().get("/Font", {}).get_object()
            for resource in resources.values():
                font = resource.get_object()
                if id(font) not in self._fonts and font.get("/Subtype") == "/Type0":
                    _add_space(font)
                self._font(font)
        except Exception:  # noqa: BLE001 - damaged resources raise anything
            return

    def width(self, shown: Any, resource: DictionaryObject | None) -> float:
        """Width of what ``Tj`` or ``TJ`` shows, in units of the font size."""
        font = self._font(resource)
        width = 0.0
        for item in shown if isinstance(shown, ArrayObject) else (shown,):
            if isinstance(item, int | float):
                width -= float(item)
            elif isinstance(item, str):
                width += 500.0 * len(item)
            elif isinstance(item, bytes):
                width += _width_of_codes(item, font)
        return width / 1000

    def _font(self, resource: DictionaryObject | None) -> Font | None:
        if resource is None:
            return None
        known = self._fonts.get(id(resource))
        if known is None:
            try:
                font = Font.from_font_resource(resource)
            except Exception:  # noqa: BLE001 - a damaged font raises anything
                font = None
            # The resource is kept so that no other object gets its identity.
            known = self._fonts[id(resource)] = (resource, font)
        return known[1]


def _add_space(font: DictionaryObject) -> None:
    known = Font.from_font_resource(font)
    if " " in known.character_map.values() or "/ToUnicode" not in font:
        return
    names: bytes = cast(Any, font["/ToUnicode"]).get_data()
    named = DecodedStreamObject()
    space = b"1 beginbfchar <%04X> <0020> endbfchar endcmap" % _UNUSED_CODE
    named.set_data(names.replace(b"endcmap", space, 1))
    font[NameObject("/ToUnicode")] = named
    descendant = cast(Any, font["/DescendantFonts"])[0].get_object()
    widths = list(descendant.get("/W", ArrayObject()).get_object())
    own = [NumberObject(_UNUSED_CODE), ArrayObject([NumberObject(_SPACE_WIDTH)])]
    descendant[NameObject("/W")] = ArrayObject(widths + own)


def _width_of_codes(codes: bytes, font: Font | None) -> float:
    if font is None:
        return 500.0 * len(codes)
    if isinstance(font.encoding, str):
        characters = codes.decode(font.encoding, "replace")
    else:
        characters = codes.decode("latin-1")
    widths = font.character_widths
    default = widths.get("default", 500)
    return float(sum(widths.get(character, default) for character in characters))


def read_lines(page: PageObject, fonts: Fonts) -> list[Line]:
    """Return the lines of a page in pypdf's order, joined by line ends exactly pypdf's text.

    Lines at an angle to most of the text, as in a stamp on the margin, come last.

    Raises:
        Exception: Whatever pypdf raises for a damaged page.
    """
    fonts.prepare(page)
    collected = _collect(page, fonts, apart=True)
    if any(_RIGHT_TO_LEFT.search(text) for text, *_ in collected):
        # pypdf puts these scripts in order only within what it hands over together.
        collected = _collect(page, fonts, apart=False)
    lines = list(_lines(_upright(collected)))
    turned = [line for line in lines if line.pieces[0].quarter]
    return [line for line in lines if not line.pieces[0].quarter] + turned


_Collected = tuple[str, tuple[float, float], float, float, int, str]
"""Text, place of its start, length, size, quarter turns and font."""


class _Gatherer:
    """Visitors of pypdf that note what is shown where."""

    def __init__(self, fonts: Fonts) -> None:
        self.found: list[_Collected] = []
        self._fonts = fonts
        self._shown: list[tuple[Any, list[float] | None]] = []
        self._last: list[float] | None = None
        self._advance = 0.0

    def before(self, operator: bytes, operands: Any, cm: list[float], tm: list[float]) -> None:
        """Note a string that will be shown; None for its place if it begins a line."""
        if operator in _SHOW_TEXT and operands:
            at = _product(tm, cm) if operator in (b"Tj", b"TJ") else None
            self._shown.append((operands[-1], at))

    def text(
        self,
        text: str,
        cm: list[float],
        tm: list[float],
        font: DictionaryObject | None,
        size: float,
    ) -> None:
        """Note text with the strings shown for it."""
        m = _product(tm, cm)
        along, across = math.hypot(m[0], m[1]), math.hypot(m[2], m[3])
        begin, length = 0.0, 0.0
        for number, (what, at) in enumerate(self._shown):
            # Without a move between, a string begins where the last one ended.
            if at is None or at != self._last:
                self._advance = 0.0
            self._last = at
            if number == 0:
                begin = self._advance + _lead(what) * size * along
            self._advance += self._fonts.width(what, font) * size * along
            moved = math.hypot(at[4] - m[4], at[5] - m[5]) if at is not None else 0.0
            length = max(length, moved + self._advance - begin)
        self._shown.clear()
        if text:
            x = m[4] + begin * (m[0] / along if along else 1.0)
            y = m[5] + begin * (m[1] / along if along else 0.0)
            quarter = round(math.atan2(m[1], m[0]) / (math.pi / 2)) % 4
            name = str(font.get("/BaseFont", "")) if font is not None else ""
            self.found.append((text, (x, y), length, abs(size) * across, quarter, name))


def _lead(shown: Any) -> float:
    """The way to the first string of what ``TJ`` shows, in units of the font size."""
    leads = isinstance(shown, ArrayObject) and shown and isinstance(shown[0], int | float)
    return -float(shown[0]) / 1000 if leads else 0.0


def _collect(page: PageObject, fonts: Fonts, *, apart: bool) -> list[_Collected]:
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
    """The operation; what shows text is handed over by itself, and in parts at a wide gap."""
    operands, operator = operation
    if operator not in _SHOW_TEXT:
        yield operation
    elif operator != b"TJ" or not operands or not isinstance(operands[0], ArrayObject):
        yield _HAND_OVER
        yield operation
    else:
        part = ArrayObject()
        for item in operands[0]:
            if part and isinstance(item, int | float) and item < -1000 * _MAX_GAP_EM:
                yield _HAND_OVER
                yield [part], operator
                part = ArrayObject()
            part.append(item)
        yield _HAND_OVER
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


def _upright(collected: Sequence[_Collected]) -> Iterator[Piece]:
    """Turn the page so that most of its characters are upright."""
    characters: Counter[int] = Counter()
    for text, *_, quarter, _font in collected:
        characters[quarter] += len(text.strip())
    main = characters.most_common(1)[0][0] if characters else 0
    for text, (x, y), length, size, quarter, font in collected:
        left, baseline = ((x, y), (y, -x), (-x, -y), (-y, x))[main]
        yield Piece(text, left, left + length, baseline, size, font, (quarter - main) % 4)


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
    """Add a piece to a line, to the last one where no wide gap is between."""
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
    line[-1] = Piece(
        last.text + piece.text,
        min(last.left, piece.left),
        max(last.right, piece.right),
        main.baseline,
        main.size,
        main.font,
        last.quarter,
    )
