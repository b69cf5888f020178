"""Finds the text of a page's annotations: values of form fields, free text, stamps, comments.

What an annotation shows is its appearance (ISO 32000-2, 12.5.5). A field without one has the value
of the field (12.7.4), and a comment its contents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pypdf import PageObject
from pypdf.generic import DictionaryObject, StreamObject

from hga_chat.documents.pdf.glyphs import Interpreter
from hga_chat.documents.pdf.lines import Line, Piece, lines_of
from hga_chat.documents.pdf.objects import dictionary, items, number, numbers, resolved, text_of

MAX_ANNOTATIONS = 5_000
_HIDDEN, _NO_VIEW = 1 << 1, 1 << 5
_RADIO, _PUSH_BUTTON, _PASSWORD, _COMBO = 1 << 15, 1 << 16, 1 << 13, 1 << 17
_MAX_SHOWN_CHOICES = 50
_MAX_PARENTS = 16
_COMMENTS = frozenset(
    ("/Text", "/Highlight", "/Underline", "/Squiggly", "/StrikeOut", "/Caret", "/Ink", "/Square")
) | {"/Circle", "/Line", "/Polygon", "/PolyLine"}
_WITHOUT_TEXT = frozenset(("/Link", "/Popup", "/FileAttachment"))
_DEFAULT_SIZE = 10.0


@dataclass(frozen=True)
class Shown:
    """The text of an annotation, as lines with places on the page."""

    lines: tuple[Line, ...]
    is_comment: bool = False
    unknown: int = 0
    """Glyphs of its appearance that the file does not name."""


def annotations_of(page: PageObject, interpreter: Interpreter) -> Iterator[Shown]:
    """Yield the text of each annotation that is shown; damaged ones are left out."""
    for entry in items(page.get("/Annots"))[:MAX_ANNOTATIONS]:
        annotation = dictionary(entry)
        flags = int(number(annotation.get("/F")))
        if flags & (_HIDDEN | _NO_VIEW) or interpreter.hides(annotation.get("/OC")):
            continue
        try:
            shown = _shown(annotation, interpreter)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - a damaged annotation raises anything
            continue
        if shown is not None:
            yield shown


def _shown(annotation: DictionaryObject, interpreter: Interpreter) -> Shown | None:
    kind = str(resolved(annotation.get("/Subtype", "")))
    rect = numbers(annotation.get("/Rect"), 4)
    if kind in _WITHOUT_TEXT or rect is None:
        return None
    rect = [min(rect[0], rect[2]), min(rect[1], rect[3]), max(rect[0], rect[2]), max(rect[1::2])]
    if kind in _COMMENTS:
        said = " ".join(text_of(annotation.get("/Contents")).split())
        if not said:
            return None
        author = " ".join(text_of(annotation.get("/T")).split())
        text = f"[comment by {author}: {said}]" if author else f"[comment: {said}]"
        return Shown(_placed([text], rect), is_comment=True)
    content = interpreter.appearance(_appearance(annotation), rect)
    lines = [line for line in lines_of(content.glyphs) if not line.is_blank]
    if kind == "/Widget":
        lines = _field(annotation, lines, rect, is_stale=interpreter.has_stale_fields)
    if not lines and kind == "/FreeText":
        lines = list(_placed(text_of(annotation.get("/Contents")).splitlines(), rect))
    return Shown(tuple(lines), unknown=content.unknown) if lines else None


def _appearance(annotation: DictionaryObject) -> Any:
    """Return the normal appearance in the current state; None without one."""
    normal = resolved(dictionary(annotation.get("/AP")).get("/N"))
    if isinstance(normal, StreamObject) or not isinstance(normal, DictionaryObject):
        return normal
    return resolved(normal.get(str(resolved(annotation.get("/AS", "/Off")))))


def _field(
    annotation: DictionaryObject, lines: list[Line], rect: Sequence[float], *, is_stale: bool
) -> list[Line]:
    """Return the lines of a form field: its appearance, else its value or a mark.

    Where the document says that appearances are to be made anew, the value comes first. Of a list
    in which more than the chosen entries show, these are marked.
    """
    kind = _inherited(annotation, "/FT")
    flags = int(number(_inherited(annotation, "/Ff")))
    if kind == "/Btn" and not flags & _PUSH_BUTTON:
        on = _is_on(annotation)
        if not (on and lines):
            marks = "◉○" if flags & _RADIO else "☑☐"
            lines = list(_placed([marks[0 if on else 1]], rect))
    elif kind == "/Tx" and flags & _PASSWORD:
        return []
    elif kind == "/Ch" and not flags & _COMBO and (marked := _marked(annotation)):
        lines = list(_placed(marked, rect))
    elif kind in ("/Tx", "/Ch") and (is_stale or not lines):
        lines = list(_placed(_value(annotation, str(kind)), rect)) or lines
    return lines


def _is_on(annotation: DictionaryObject) -> bool:
    """Whether a check box or radio button is on."""
    state = resolved(annotation.get("/AS"))
    if state is None:
        value = _inherited(annotation, "/V")
        states = dictionary(dictionary(annotation.get("/AP")).get("/N"))
        return value not in (None, "/Off", "Off", "") and (not states or value in states)
    return str(state) != "/Off"


def _inherited(field: DictionaryObject, key: str) -> Any:
    """Return a value of a field or of the fields that it is part of."""
    for _ in range(_MAX_PARENTS):
        if key in field:
            return resolved(field.get(key))
        field = dictionary(field.get("/Parent"))
    return None


def _value(annotation: DictionaryObject, kind: str) -> list[str]:
    """Return the value of a field as lines; of choices, as they are displayed."""
    chosen = _chosen(annotation)
    if kind == "/Ch":
        names = dict(_options(annotation))
        chosen = [names.get(entry, entry) for entry in chosen]
    return [line for entry in chosen for line in entry.replace("\r", "\n").split("\n")]


def _chosen(annotation: DictionaryObject) -> list[str]:
    value = _inherited(annotation, "/V")
    if isinstance(value, StreamObject):
        value = value.get_data()
    return [text_of(entry) for entry in (items(value) or [value])]


def _options(annotation: DictionaryObject) -> list[tuple[str, str]]:
    """Return what can be chosen: values, and what is displayed for them."""
    found = []
    for option in items(_inherited(annotation, "/Opt")):
        pair = items(option) or [option, option]
        if len(pair) == 2:
            found.append((text_of(pair[0]), text_of(pair[1])))
    return found


def _marked(annotation: DictionaryObject) -> list[str]:
    """Return the entries of a list, the chosen ones ticked; none if there are too many."""
    options, chosen = _options(annotation), set(_chosen(annotation))
    if len(options) > _MAX_SHOWN_CHOICES:
        return []
    return [f"{'☑' if value in chosen else '☐'} {shown}" for value, shown in options]


def _placed(texts: Sequence[str], rect: Sequence[float]) -> tuple[Line, ...]:
    """Return lines from the top of a rectangle down."""
    shown = [text for text in texts if text.strip()]
    if not shown:
        return ()
    height = (rect[3] - rect[1]) / len(shown)
    size = min(_DEFAULT_SIZE, max(height, 1.0))
    return tuple(
        Line(
            (
                Piece(
                    text,
                    rect[0],
                    rect[2],
                    rect[3] - height * (number + 0.5) - 0.3 * size,
                    *(size, ""),
                ),
            )
        )
        for number, text in enumerate(shown)
    )


def with_annotations(lines: Sequence[Line], annotations: Sequence[Shown]) -> list[Line]:
    """Return a page's lines with each annotation at its place, and comments at the end.

    A value goes into the line at its height, sorted by place; where there is none, it goes before
    the next line below it.
    """
    placed = list(lines)
    comments: list[Line] = []
    for shown in annotations:
        if shown.is_comment:
            comments += shown.lines
            continue
        for line in shown.lines:
            _insert(placed, line)
    return placed + comments


def _insert(lines: list[Line], value: Line) -> None:
    new = value.pieces[0]
    level = [
        (_distance(line, value), number)
        for number, line in enumerate(lines)
        if line.pieces
        and line.pieces[0].turn == new.turn
        and abs(line.main.baseline - new.baseline) <= 0.6 * max(line.main.size, new.size)
    ]
    if level:
        _, number = min(level)
        baseline = lines[number].main.baseline
        pieces = sorted((*lines[number].pieces, *value.pieces), key=lambda piece: piece.left)
        lines[number] = Line(
            tuple(
                Piece(
                    piece.text.rstrip() + " " if at < len(pieces) else piece.text.rstrip(),
                    *(piece.left, piece.right, baseline, piece.size, piece.font),
                    piece.turn,
                )
                for at, piece in enumerate(pieces, start=1)
            )
        )
        return
    below = [
        number
        for number, line in enumerate(lines)
        if line.pieces and not line.pieces[0].turn and line.main.baseline < new.baseline
    ]
    lines.insert(below[0] if below else len(lines), value)


def _distance(line: Line, value: Line) -> float:
    """Return how far a value is from a line, to the side."""
    left = min(piece.left for piece in line.pieces)
    right = max(piece.right for piece in line.pieces)
    new = value.pieces[0]
    return max(new.left - right, left - new.right, 0.0)
