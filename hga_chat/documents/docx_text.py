"""The text of a Word document (Office Open XML): paragraphs, headings, lists and tables.

Format: ECMA-376, WordprocessingML. Headers, footers, comments and deleted text are left out.
"""

import posixpath
import re
from collections.abc import Collection, Iterator
from typing import Any

from hga_chat.documents.outline import Outline
from hga_chat.documents.types import UnreadableError
from hga_chat.documents.zip_members import Members

_RELATIONSHIPS = "_rels/.rels"
_MAIN_TYPE = "/officeDocument"
_DEFAULT_MAIN = "word/document.xml"
_TITLE_LEVEL = 0
_MAX_HEADING_LEVEL = 9
_BODY_TEXT_LEVEL = 9
_MAX_STYLE_DEPTH = 20
_HEADING_NAME = re.compile(r"heading ([1-9])", re.IGNORECASE)
# Removed text, the plain rendering of what is there already, and what is not part of the text.
_LEFT_OUT = frozenset(
    {
        *("del", "moveFrom", "Fallback", "commentReference", "instrText", "delText"),
        *("rPr", "pPr", "tblPr", "trPr", "tcPr", "sectPr"),
    }
)
_BLOCKS = frozenset({"p", "tbl"})
_NOTE_PARTS = (("footnotes.xml", "footnote", "Footnotes"), ("endnotes.xml", "endnote", "Endnotes"))


def read_docx(members: Members) -> tuple[Outline, list[str]]:
    """Return the text of a Word document with its headings, and notes on what could not be read.

    Raises:
        UnreadableError: The document is damaged.
    """
    main = _main_part(members)
    folder = posixpath.dirname(main)
    body = _child(members.read_xml(main), "body")
    if body is None:
        raise UnreadableError("damaged Word document: it has no body")
    notes: list[str] = []
    styles: dict[str, int | None] = {}
    if f"{folder}/styles.xml" in members:
        try:
            styles = _heading_styles(members.read_xml(f"{folder}/styles.xml"))
        except UnreadableError as error:
            notes.append(f"headings are not told from text: {error}")
    text = _Text(styles)
    text.add(body)
    for name, kind, title in _NOTE_PARTS:
        if f"{folder}/{name}" in members:
            try:
                text.add_notes(members.read_xml(f"{folder}/{name}"), kind, title)
            except UnreadableError as error:
                notes.append(str(error))
    return Outline(text.lines, text.headings), notes


def _main_part(members: Members) -> str:
    if _RELATIONSHIPS in members:
        for relationship in members.read_xml(_RELATIONSHIPS).iter("{*}Relationship"):
            if (relationship.get("Type") or "").endswith(_MAIN_TYPE):
                return posixpath.normpath((relationship.get("Target") or "").lstrip("/"))
    return _DEFAULT_MAIN


def _heading_styles(root: Any) -> dict[str, int | None]:
    """Level of the headings that each paragraph style makes, from 0; None for other styles."""
    styles = {_value(style, "styleId"): style for style in root.iter("{*}style")}
    return {name: _style_level(style, styles) for name, style in styles.items() if name}


def _style_level(style: Any, styles: dict[str | None, Any]) -> int | None:
    for _ in range(_MAX_STYLE_DEPTH):
        name = _value(_child(style, "name")) or ""
        match = _HEADING_NAME.fullmatch(name)
        if match:
            return int(match[1])
        if name.lower() == "title":
            return _TITLE_LEVEL
        level = _outline_level(_child(style, "pPr"))
        if level is not None:
            return level
        style = styles.get(_value(_child(style, "basedOn")))
        if style is None:
            return None
    return None


def _outline_level(properties: Any) -> int | None:
    value = _value(_child(properties, "outlineLvl")) or ""
    if not value.isdecimal() or int(value) >= _BODY_TEXT_LEVEL:
        return None
    return int(value) + 1


class _Text:
    """Lines and headings as they are found."""

    def __init__(self, styles: dict[str, int | None]) -> None:
        self.lines: list[str] = []
        self.headings: list[tuple[int, int, str]] = []
        self._styles = styles

    def add(self, parent: Any) -> None:
        """Add the paragraphs and tables of an element, in order."""
        for block in _nested(parent, _BLOCKS):
            if _local(block) == "tbl":
                self._blank()
                self.lines += _rows(block)
                self._blank()
            else:
                self._add_paragraph(block)

    def add_notes(self, root: Any, kind: str, title: str) -> None:
        """Add footnotes or endnotes under a heading of their own."""
        # The separators that Word draws between text and notes are notes of another type.
        found = [note for note in _nested(root, {kind}) if _value(note, "type") is None]
        if not found:
            return
        self._blank()
        self.headings.append((len(self.lines), _TITLE_LEVEL, title))
        self.lines.append(f"# {title}")
        for note in found:
            self.lines.append(f"[{_value(note, 'id')}] {_flat(note)}")

    def _add_paragraph(self, paragraph: Any) -> None:
        text = _inline(paragraph).strip()
        if not text:
            return
        properties = _child(paragraph, "pPr")
        level = _outline_level(properties)
        if level is None:
            level = self._styles.get(_value(_child(properties, "pStyle")) or "")
        if level is not None:
            title = " ".join(text.split())
            self._blank()
            self.headings.append((len(self.lines), level, title))
            self.lines += [f"{'#' * max(level, 1)} {title}", ""]
            return
        numbering = _child(properties, "numPr")
        if numbering is None:
            self._blank()
            self.lines += [*text.split("\n"), ""]
            return
        depth = _value(_child(numbering, "ilvl")) or ""
        indent = "  " * (min(int(depth), _MAX_HEADING_LEVEL) if depth.isdecimal() else 0)
        first, *others = text.split("\n")
        self.lines += [f"{indent}- {first}", *(f"{indent}  {line}" for line in others)]

    def _blank(self) -> None:
        if self.lines and self.lines[-1]:
            self.lines.append("")


def _nested(parent: Any, names: Collection[str]) -> Iterator[Any]:
    """The outermost elements of these names, whatever controls and insertions they stand in."""
    for element in parent:
        name = _local(element)
        if name in names:
            yield element
        elif name not in _LEFT_OUT:
            yield from _nested(element, names)


def _rows(table: Any) -> list[str]:
    """A line a row: the cells with bars between them."""
    rows = [[_flat(cell) for cell in _nested(row, {"tc"})] for row in _nested(table, {"tr"})]
    return [" | ".join(cells).strip() for cells in rows if any(cells)]


def _flat(parent: Any) -> str:
    """The text of paragraphs and of tables between them in one line."""
    texts = []
    for block in _nested(parent, _BLOCKS):
        texts += _rows(block) if _local(block) == "tbl" else [_inline(block)]
    return " ".join(" ".join(texts).split())


def _inline(element: Any) -> str:
    """The text of a paragraph."""
    pieces = []
    for child in element:
        name = _local(child)
        if name == "t":
            pieces.append(child.text or "")
        elif name in {"tab", "ptab"}:
            pieces.append("\t")
        elif name in {"br", "cr"}:
            pieces.append("\n" if _value(child, "type") is None else " ")
        elif name == "noBreakHyphen":
            pieces.append("-")
        elif name in {"footnoteReference", "endnoteReference"}:
            pieces.append(f"[{_value(child, 'id')}]")
        elif name == "docPr" and child.get("descr"):
            pieces.append(f"[image: {' '.join(child.get('descr').split())}]")
        elif name == "p":  # of a text box
            pieces.append(f"\n{_inline(child)}\n")
        elif name not in _LEFT_OUT:
            pieces.append(_inline(child))
    return "".join(pieces)


def _local(element: Any) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _child(element: Any, name: str) -> Any:
    return None if element is None else next(element.iterchildren(f"{{*}}{name}"), None)


def _value(element: Any, name: str = "val") -> str | None:
    """An attribute in the element's own namespace."""
    if element is None:
        return None
    namespace = element.tag.rpartition("}")[0].lstrip("{")
    value: str | None = element.get(f"{{{namespace}}}{name}")
    return value
