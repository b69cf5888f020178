"""Interprets the content of a PDF page: every glyph shown, with its text and place.

pypdf parses files and streams; this module keeps the graphics and text state (ISO
32000-2, 8.4 and 9.3) and what the operators leave out: text that marked content replaces
(``/ActualText``, 14.9.4), optional content that is off (8.11), thin rules, annotations.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pypdf import PageObject, PdfReader
from pypdf.generic import DictionaryObject, StreamObject

from hga_chat.documents.pdf.content_parser import Operation, operations
from hga_chat.documents.pdf.fonts import Font, Fonts
from hga_chat.documents.pdf.objects import (
    dictionary,
    is_true,
    items,
    number,
    numbers,
    resolved,
    text_of,
)

MAX_GLYPHS = 400_000
MAX_OPERATIONS = 2_000_000
_MAX_DEPTH = 12
_MAX_RULES = 5_000
_MAX_RULE_HEIGHT = 2.5
_MIN_RULE_RATIO = 3.0
_TEXT_OPERATORS = (b"Tj", b"TJ", b"'", b'"', b"Do", b"BI")
_KEPT_FORMS = 64
_MAX_WORD_GAP = 0.06
Matrix = tuple[float, float, float, float, float, float]
_MAX_LETTER_SPACE = 0.6
_TILT = 4
_IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


@dataclass(slots=True)
class Glyph:
    """A glyph, or a word set without gaps, on the page, in points of the page's own frame.

    ``x``, ``y`` is its origin on the baseline and ``to_x``, ``to_y`` the origin of the next one.
    ``angle`` is the writing direction in whole degrees. ``operation`` tells the strings of one
    operator from those of others. ``shift`` is the text rise.
    """

    text: str
    x: float
    y: float
    to_x: float
    to_y: float
    size: float
    angle: int
    font: str
    operation: int
    shift: float = 0.0
    known: bool = True
    """Whether the file says what the glyph stands for."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A thin horizontal line or bar."""

    left: float
    right: float
    y: float


@dataclass
class Content:
    """What a page shows."""

    glyphs: list[Glyph] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    images: int = 0
    hidden: int = 0
    """Glyphs of layers that are off."""

    @property
    def unknown(self) -> int:
        """The number of glyphs that the file does not name."""
        return sum(not glyph.known for glyph in self.glyphs)


class TooMuchError(Exception):
    """The page has more operations or glyphs than the limits."""


@dataclass(slots=True)
class _Text:
    """The text state, which ``q`` saves with the matrix."""

    font: Font | None = None
    size: float = 0.0
    char_space: float = 0.0
    word_space: float = 0.0
    stretch: float = 1.0
    leading: float = 0.0
    rise: float = 0.0

    def copy(self) -> "_Text":
        return _Text(
            self.font,
            self.size,
            self.char_space,
            self.word_space,
            self.stretch,
            self.leading,
            self.rise,
        )


@dataclass(slots=True)
class _Marked:
    """Marked content that is open."""

    hides: bool
    actual: str | None
    start: int


def product(m: Sequence[float], n: Sequence[float]) -> Matrix:
    """Return the matrix that applies ``m`` first."""
    return (
        m[0] * n[0] + m[1] * n[2],
        m[0] * n[1] + m[1] * n[3],
        m[2] * n[0] + m[3] * n[2],
        m[2] * n[1] + m[3] * n[3],
        m[4] * n[0] + m[5] * n[2] + n[4],
        m[4] * n[1] + m[5] * n[3] + n[5],
    )


class Layers:
    """The optional content groups that are off by default."""

    def __init__(self, reader: PdfReader) -> None:
        try:
            properties = dictionary(reader.root_object.get("/OCProperties"))
        except Exception:  # noqa: BLE001 - a damaged catalogue raises anything
            properties = DictionaryObject()
        usual = dictionary(properties.get("/D"))
        self._off = {id(resolved(group)) for group in items(usual.get("/OFF"))}
        if resolved(usual.get("/BaseState")) == "/OFF":
            on = {id(resolved(group)) for group in items(usual.get("/ON"))}
            self._off |= {id(resolved(group)) for group in items(properties.get("/OCGs"))} - on

    def hides(self, group: Any) -> bool:
        """Whether content of a group, or of a membership dictionary, is off."""
        if not self._off or group is None:
            return False
        group = resolved(group)
        if id(group) in self._off:
            return True
        members = dictionary(group).get("/OCGs")
        if members is None:
            return False
        groups = items(members) or [members]
        off = [id(resolved(member)) in self._off for member in groups]
        policy = str(resolved(dictionary(group).get("/P", "/AnyOn")))
        shown = {
            "/AllOn": not any(off),
            "/AnyOff": any(off),
            "/AllOff": all(off),
        }.get(policy, not all(off))
        return not shown


class Interpreter:
    """Interprets the pages of one document."""

    def __init__(self, reader: PdfReader, fonts: Fonts | None = None) -> None:
        self._fonts = fonts or Fonts()
        self._layers = Layers(reader)
        self.has_stale_fields = _has_stale_fields(reader)
        """Whether the appearances of fields are to be made anew from their values."""
        self._parsed: dict[int, tuple[Any, list[Operation]]] = {}

    def page(self, page: PageObject) -> Content:
        """Return what a page shows, without annotations.

        Raises:
            Exception: Whatever pypdf raises for a damaged page.
        """
        drawing = _Drawing(self)
        contents = page.get("/Contents")
        if contents is not None:
            drawing.run(_operations(contents), page.get("/Resources"), _IDENTITY, 0)
        return drawing.content

    def appearance(self, stream: Any, rect: Sequence[float]) -> Content:
        """Return what an annotation's appearance shows in its rectangle (ISO 32000-2, 12.5.5)."""
        drawing = _Drawing(self)
        drawing.form(stream, _fitted(dictionary(stream), rect), None, 1)
        return drawing.content

    def hides(self, group: Any) -> bool:
        """Whether optional content is off."""
        return self._layers.hides(group)

    def font(self, resource: Any) -> Font:
        """Return a parsed font."""
        return self._fonts.get(resource)

    def operations(self, stream: Any) -> list[Operation]:
        """Return the operations of a form, parsed once."""
        known = self._parsed.get(id(stream))
        if known is None:
            known = self._parsed[id(stream)] = stream, list(_operations(stream))
            if len(self._parsed) > _KEPT_FORMS:
                del self._parsed[next(iter(self._parsed))]
        return known[1]


def _has_stale_fields(reader: PdfReader) -> bool:
    try:
        return is_true(dictionary(reader.root_object.get("/AcroForm")).get("/NeedAppearances"))
    except Exception:  # noqa: BLE001 - a damaged catalogue raises anything
        return False


def _operations(contents: Any) -> Iterable[Operation]:
    """Return the operations of a stream or of an array of streams."""
    parts = [resolved(part) for part in items(contents) or [contents]]
    data = b"\n".join(part.get_data() for part in parts if isinstance(part, StreamObject))
    if not any(operator in data for operator in _TEXT_OPERATORS):
        return ()
    return operations(data)


def _fitted(form: DictionaryObject, rect: Sequence[float]) -> Matrix:
    """Return the matrix that fits an appearance's transformed box into a rectangle."""
    box = numbers(form.get("/BBox"), 4) or [0.0, 0.0, 1.0, 1.0]
    matrix = numbers(form.get("/Matrix"), 6) or list(_IDENTITY)
    corners = [
        (
            x * matrix[0] + y * matrix[2] + matrix[4],
            x * matrix[1] + y * matrix[3] + matrix[5],
        )
        for x in (box[0], box[2])
        for y in (box[1], box[3])
    ]
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    bottom, top = min(y for _, y in corners), max(y for _, y in corners)
    wide = (rect[2] - rect[0]) / (right - left) if right > left else 1.0
    high = (rect[3] - rect[1]) / (top - bottom) if top > bottom else 1.0
    return (wide, 0.0, 0.0, high, rect[0] - left * wide, rect[1] - bottom * high)


class _Drawing:
    """The state of one page, or one appearance, while it is drawn."""

    def __init__(self, owner: Interpreter) -> None:
        self.content = Content()
        self._owner = owner
        self._steps = 0
        self._shows = 0
        self._active: set[int] = set()

    def form(self, stream: Any, matrix: Matrix, resources: Any, depth: int) -> None:
        """Draw a form XObject."""
        stream = resolved(stream)
        if not isinstance(stream, StreamObject) or depth > _MAX_DEPTH or id(stream) in self._active:
            return
        own = numbers(stream.get("/Matrix"), 6)
        self._active.add(id(stream))
        try:
            self.run(
                self._owner.operations(stream),
                stream.get("/Resources", resources),
                product(own, matrix) if own else matrix,
                depth,
            )
        finally:
            self._active.discard(id(stream))

    def run(self, operations: Iterable[Operation], resources: Any, ctm: Matrix, depth: int) -> None:
        """Interpret operations.

        Raises:
            TooMuchError: There are more operations or glyphs than the limits.
        """
        resources = dictionary(resources)
        fonts = dictionary(resources.get("/Font"))
        text = _Text()
        saved: list[tuple[Matrix, _Text]] = []
        tm = line = _IDENTITY
        marked: list[_Marked] = []
        hidden = 0
        path: list[tuple[float, float, float, float]] = []
        at = (0.0, 0.0)
        for operands, operator in operations:
            self._steps += 1
            if self._steps > MAX_OPERATIONS or len(self.content.glyphs) > MAX_GLYPHS:
                raise TooMuchError(f"more than {MAX_OPERATIONS:,} operations on a page")
            if operator in (b"Tj", b"TJ", b"'", b'"'):
                if operator in (b"'", b'"'):
                    if operator == b'"' and len(operands) >= 3:
                        text.word_space = number(operands[0])
                        text.char_space = number(operands[1])
                    line = tm = product((1, 0, 0, 1, 0, -text.leading), line)
                if operands and text.font is not None:
                    shown = operands[-1]
                    moved = self._show(
                        shown if isinstance(shown, list) else (shown,),
                        *(text, tm, ctm),
                        hidden=hidden > 0,
                    )
                    tm = product((1, 0, 0, 1, *moved), tm)
            elif operator in (b"Td", b"TD"):
                x, y = _pair(operands)
                if operator == b"TD":
                    text.leading = -y
                line = tm = product((1, 0, 0, 1, x, y), line)
            elif operator == b"Tm":
                given = [number(value) for value in operands[:6]]
                line = tm = tuple(given) if len(given) == 6 else _IDENTITY  # type: ignore[assignment]
            elif operator == b"T*":
                line = tm = product((1, 0, 0, 1, 0, -text.leading), line)
            elif operator == b"BT":
                line = tm = _IDENTITY
            elif operator == b"Tf":
                if operands:
                    resource = resolved(fonts.get(operands[0]))
                    text.font = self._owner.font(resource) if resource is not None else None
                    if text.font is None:
                        text.font = self._owner.font(_NO_FONT)
                if len(operands) > 1:
                    text.size = number(operands[1])
            elif operator == b"Tc":
                text.char_space = _first(operands)
            elif operator == b"Tw":
                text.word_space = _first(operands)
            elif operator == b"Tz":
                text.stretch = _first(operands, 100.0) / 100
            elif operator == b"TL":
                text.leading = _first(operands)
            elif operator == b"Ts":
                text.rise = _first(operands)
            elif operator == b"q":
                if len(saved) < 1000:
                    saved.append((ctm, text.copy()))
            elif operator == b"Q":
                if saved:
                    ctm, text = saved.pop()
            elif operator == b"cm":
                given = [number(value) for value in operands[:6]]
                if len(given) == 6:
                    ctm = product(given, ctm)
            elif operator == b"re":
                if len(operands) >= 4 and len(self.content.rules) < _MAX_RULES:
                    x, y, wide, high = (number(value) for value in operands[:4])
                    path.append((x, y, x + wide, y + high))
            elif operator == b"m":
                at = _pair(operands)
            elif operator == b"l":
                to = _pair(operands)
                if len(self.content.rules) < _MAX_RULES:
                    path.append((*at, *to))
                at = to
            elif operator in (b"S", b"s", b"f", b"F", b"f*", b"B", b"B*", b"b", b"b*"):
                self._draw(path, ctm)
                path = []
            elif operator == b"n":
                path = []
            elif operator in (b"BDC", b"BMC"):
                entry = self._mark(operands, resources)
                hidden += entry.hides
                marked.append(entry)
            elif operator == b"EMC":
                if marked:
                    entry = marked.pop()
                    hidden -= entry.hides
                    if entry.actual is not None and not hidden and not entry.hides:
                        self._replace(entry, text, tm, ctm)
            elif operator == b"Do":
                if operands:
                    shown = dictionary(resources.get("/XObject")).get(operands[0])
                    if not self._owner.hides(dictionary(shown).get("/OC")) and not hidden:
                        self._paint(shown, resources, ctm, depth)
            elif operator == b"BI":
                self.content.images += 1
            elif operator == b"gs" and operands:
                states = dictionary(resources.get("/ExtGState"))
                chosen = items(dictionary(states.get(operands[0])).get("/Font"))
                if len(chosen) == 2:
                    text.font = self._owner.font(resolved(chosen[0]))
                    text.size = number(chosen[1])

    def _paint(self, shown: Any, resources: Any, ctm: Matrix, depth: int) -> None:
        stream = dictionary(shown)
        if stream.get("/Subtype") == "/Image":
            self.content.images += 1
        else:
            self.form(stream, ctm, resources, depth + 1)

    def _mark(self, operands: Any, resources: DictionaryObject) -> _Marked:
        hides, actual = False, None
        if len(operands) > 1:
            properties = operands[1]
            if isinstance(properties, str):
                properties = dictionary(resources.get("/Properties")).get(properties)
            hides = operands[0] == "/OC" and self._owner.hides(properties)
            said = dictionary(properties).get("/ActualText")
            if said is not None:
                actual = text_of(said)
        return _Marked(hides, actual, len(self.content.glyphs))

    def _replace(self, entry: _Marked, text: _Text, tm: Matrix, ctm: Matrix) -> None:
        """Put the text that marked content says in place of its glyphs."""
        glyphs = self.content.glyphs
        shown = glyphs[entry.start :]
        said = " ".join((entry.actual or "").split()) or ("" if not entry.actual else " ")
        if _letters("".join(glyph.text for glyph in shown)) == _letters(said) and _letters(said):
            return  # only spaces differ, which places tell as well
        del glyphs[entry.start :]
        if not said:
            return
        if shown:
            first, last = shown[0], shown[-1]
            same_line = abs(last.y - first.y) + abs(last.x - first.x) and (
                abs(last.y - first.y) < 0.5 * first.size or first.angle % 180
            )
            end = last if same_line else first
            glyph = Glyph(
                *(said, first.x, first.y, end.to_x, end.to_y),
                *(first.size, first.angle, first.font, first.operation),
            )
        else:
            m = product(tm, ctm)
            size = abs(text.size) * math.hypot(m[2], m[3])
            name = text.font.name if text.font else ""
            glyph = Glyph(said, m[4], m[5], m[4], m[5], size, angle_of(m[0], m[1]), name, 0)
        glyphs.append(glyph)

    def _show(
        self, shown: Iterable[Any], text: _Text, tm: Matrix, ctm: Matrix, *, hidden: bool
    ) -> tuple[float, float]:
        """Add the glyphs of a string or array; return how far the text matrix moves."""
        font = text.font
        assert font is not None
        self._shows += 1
        m = product(tm, ctm)
        a, b, c, d, e, f = m
        size, stretch, vertical = text.size, text.stretch, font.vertical
        e += text.rise * c
        f += text.rise * d
        if vertical:
            height = abs(size) * math.hypot(a, b)
            angle = angle_of(-c * size, -d * size)
            dx, dy = c, d
        else:
            height = abs(size) * math.hypot(c, d) * font.em
            sign = size * stretch
            angle = angle_of(a * sign, b * sign)
            dx, dy = a, b
        moved = 0.0
        glyphs, operation, name, rise = self.content.glyphs, self._shows, font.name, text.rise
        scale = font.scale * size * stretch
        char_space, word_space = text.char_space * stretch, text.word_space * stretch
        words = not vertical and abs(text.char_space) <= _MAX_WORD_GAP * abs(size)
        near = _MAX_WORD_GAP * abs(size)
        reaches = abs(text.char_space) <= _MAX_LETTER_SPACE * abs(size)
        joins, gap = False, 0.0
        for item in shown:
            if type(item) is not bytes:
                if isinstance(item, int | float):
                    by = number(item) / 1000 * size * (1.0 if vertical else stretch)
                    moved -= by
                    gap -= by
                    continue
                item = resolved(item)
                if isinstance(item, str):
                    item = item.encode("latin-1", "replace")
                if not isinstance(item, bytes):
                    continue
            for shows, width, codes, spaces, known, apart in font.runs(item, words=words):
                if vertical:
                    full = -size * codes
                    advance = full + text.char_space * codes + text.word_space * spaces
                else:
                    full = width * scale
                    advance = full + char_space * codes + word_space * spaces
                if hidden:
                    self.content.hidden += codes
                elif shows:
                    # Letters that are spaced out reach to the next one.
                    reach = advance if reaches else full + word_space * spaces
                    to = moved + (reach if reach * full > full * full else full)
                    if joins and not apart and abs(gap) <= near:
                        last = glyphs[-1]
                        last.text += shows
                        last.to_x, last.to_y = e + to * dx, f + to * dy
                    else:
                        glyphs.append(
                            Glyph(
                                shows,
                                e + moved * dx,
                                f + moved * dy,
                                e + to * dx,
                                f + to * dy,
                                height,
                                angle,
                                name,
                                operation,
                                rise,
                                known,
                            )
                        )
                    joins = words and not apart and not shows[-1].isspace()
                    gap = -advance
                moved += advance
                gap += advance
            if len(glyphs) > MAX_GLYPHS:
                raise TooMuchError(f"more than {MAX_GLYPHS:,} characters on a page")
        return (0.0, moved) if vertical else (moved, 0.0)

    def _draw(self, path: Iterable[tuple[float, float, float, float]], ctm: Matrix) -> None:
        """Keep what of a path is a thin horizontal rule."""
        for x, y, to_x, to_y in path:
            left, bottom = ctm[0] * x + ctm[2] * y + ctm[4], ctm[1] * x + ctm[3] * y + ctm[5]
            right, top = (
                ctm[0] * to_x + ctm[2] * to_y + ctm[4],
                ctm[1] * to_x + ctm[3] * to_y + ctm[5],
            )
            high, wide = abs(top - bottom), abs(right - left)
            if high <= _MAX_RULE_HEIGHT and wide > _MIN_RULE_RATIO * high and wide > 1:
                self.content.rules.append(
                    Rule(min(left, right), max(left, right), (top + bottom) / 2)
                )


_NO_FONT = DictionaryObject()


def angle_of(x: float, y: float) -> int:
    """Return a direction in whole degrees; one that is hardly tilted counts as straight."""
    if not math.isfinite(x + y):
        return 0
    angle = round(math.degrees(math.atan2(y, x))) % 360
    straight = round(angle / 90) * 90
    return straight % 360 if abs(angle - straight) <= _TILT else angle


def _letters(text: str) -> str:
    return "".join(text.split())


def _first(operands: Any, default: float = 0.0) -> float:
    return number(operands[0], default) if operands else default


def _pair(operands: Any) -> tuple[float, float]:
    if len(operands) < 2:
        return 0.0, 0.0
    return number(operands[0]), number(operands[1])
