"""Extracts the text of a Word document: paragraphs, headings, lists and tables.

Format: ECMA-376, WordprocessingML. Headers, footers, comments and deleted text are left out.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.plain.xml_lookup import child, local, value
from hga_chat.documents.types import UnreadableError
from hga_chat.documents.zipped.docx_numbering import BULLET, NoteNumbers, Numbers
from hga_chat.documents.zipped.docx_runs import LEFT_OUT, RunFormat, Runs, run_format
from hga_chat.documents.zipped.members import Members

_RELATIONSHIPS = "_rels/.rels"
_MAIN_TYPE = "/officeDocument"
_DEFAULT_MAIN = "word/document.xml"
_TITLE_LEVEL = 0
_MAX_LIST_LEVEL = 8
_BODY_TEXT_LEVEL = 9
_MAX_STYLE_DEPTH = 20
_MAX_COLUMNS = 64
_MAX_REPEATED_CHARS = 60
_MARGIN = re.compile(r"(?:.*/)?(?:header|footer)\d*\.xml")
_HEADING_NAME = re.compile(r"heading ([1-9])", re.IGNORECASE)
_BLOCKS = frozenset({"p", "tbl"})
_NOTE_PARTS = (("footnotes.xml", "footnote", "Footnotes"), ("endnotes.xml", "endnote", "Endnotes"))


def extract_docx(members: Members) -> tuple[ExtractedText, list[str]]:
    """Return the text of a Word document, and notes on the parts that could not be loaded.

    Raises:
        UnreadableError: The document is damaged.
    """
    main = _main_part(members)
    folder = posixpath.dirname(main)
    body = child(members.parse_xml(main), "body")
    if body is None:
        raise UnreadableError("damaged Word document: it has no body")
    notes: list[str] = []
    styles: dict[str, _Style] = {}
    if f"{folder}/styles.xml" in members:
        try:
            styles = _styles(members.parse_xml(f"{folder}/styles.xml"))
        except UnreadableError as error:
            notes.append(f"headings are not recognised: {error}")
    numbers = Numbers()
    if f"{folder}/numbering.xml" in members:
        try:
            numbers = Numbers(members.parse_xml(f"{folder}/numbering.xml"))
        except UnreadableError as error:
            notes.append(f"list numbers are missing: {error}")
    text = _Text(styles, numbers, NoteNumbers(_note_forms(body)))
    text.add(body)
    first = text.headings[:1]
    own_title = next((words for _, level, words in first if level == _TITLE_LEVEL), "")
    for name, kind, title in _NOTE_PARTS:
        if f"{folder}/{name}" in members:
            try:
                text.add_notes(members.parse_xml(f"{folder}/{name}"), kind, title)
            except UnreadableError as error:
                notes.append(str(error))
    left_out = text.left_out
    for name in members.names:
        if _MARGIN.fullmatch(name):
            left_out["headers and footers"] += 1
    return ExtractedText(text.lines, text.headings, title=own_title, left_out=dict(left_out)), notes


def _note_forms(body: Any) -> dict[str, str]:
    """Return the number formats of footnotes and endnotes that the sections of a document set."""
    forms = {}
    for kind in ("footnote", "endnote"):
        for properties in body.iter(f"{{*}}{kind}Pr"):
            form = value(child(properties, "numFmt"))
            if form:
                forms[kind] = form
    return forms


def _main_part(members: Members) -> str:
    if _RELATIONSHIPS in members:
        for relationship in members.parse_xml(_RELATIONSHIPS).iter("{*}Relationship"):
            if (relationship.get("Type") or "").endswith(_MAIN_TYPE):
                return posixpath.normpath((relationship.get("Target") or "").lstrip("/"))
    return _DEFAULT_MAIN


@dataclass(frozen=True)
class _Style:
    """The effect of a paragraph style."""

    level: int | None = None
    """Heading level, from 0; None for paragraphs that are not headings."""
    list: str | None = None
    """The list that the paragraphs belong to."""
    depth: int = 0
    """Their level in the list, from 0."""
    run: RunFormat = field(default_factory=RunFormat)
    """How their text looks where its runs do not say."""


def _styles(root: Any) -> dict[str, _Style]:
    found = {value(style, "styleId"): style for style in root.iter("{*}style")}
    return {name: _style(style, found) for name, style in found.items() if name}


def _style(style: Any, styles: dict[str | None, Any]) -> _Style:
    """Return a style with what it inherits from the styles it is based on."""
    made = _Style()
    for _ in range(_MAX_STYLE_DEPTH):
        properties = child(style, "pPr")
        if made.level is None:
            made = replace(made, level=_heading_level(style, properties))
        if made.list is None:
            name, depth = _list(properties)
            made = replace(made, list=name, depth=depth if made.depth == 0 else made.depth)
        made = replace(made, run=made.run.over(run_format(child(style, "rPr"))))
        style = styles.get(value(child(style, "basedOn")))
        if style is None:
            break
    return made


def _heading_level(style: Any, properties: Any) -> int | None:
    name = value(child(style, "name")) or ""
    match = _HEADING_NAME.fullmatch(name)
    if match:
        return int(match[1])
    return _TITLE_LEVEL if name.lower() == "title" else _outline_level(properties)


def _list(properties: Any) -> tuple[str | None, int]:
    """Return the list of a paragraph with these properties, and its level in the list."""
    numbering = child(properties, "numPr")
    depth = value(child(numbering, "ilvl")) or ""
    level = min(int(depth), _MAX_LIST_LEVEL) if depth.isdecimal() else 0
    return value(child(numbering, "numId")), level


def _outline_level(properties: Any) -> int | None:
    level = value(child(properties, "outlineLvl")) or ""
    if not level.isdecimal() or int(level) >= _BODY_TEXT_LEVEL:
        return None
    return int(level) + 1


class _Text:
    """Collects lines and headings."""

    def __init__(self, styles: dict[str, _Style], numbers: Numbers, notes: NoteNumbers) -> None:
        self.lines: list[str] = []
        self.headings: list[tuple[int, int, str]] = []
        self._styles = styles
        self._numbers = numbers
        self._initial = ""
        """A large first letter, which Word keeps in a paragraph of its own."""
        self._notes = notes
        self._runs = Runs({name: style.run for name, style in styles.items()}, notes)

    @property
    def left_out(self) -> Counter[str]:
        """What is not in the lines, and how often."""
        return self._runs.left_out

    def add(self, parent: Any) -> None:
        """Add the paragraphs and tables of an element, in order."""
        for block in _nested(parent, _BLOCKS):
            if local(block) == "tbl":
                self._blank()
                self.lines += self._rows(block)
                self._blank()
            else:
                self._add_paragraph(block)

    def add_notes(self, root: Any, kind: str, title: str) -> None:
        """Add footnotes or endnotes under a heading of their own."""
        notes = {value(note, "id"): note for note in _nested(root, {kind})}
        marks = self._notes.marks(kind)
        found = [(mark, notes[name]) for name, mark in marks.items() if name in notes]
        if not found:
            return
        self._blank()
        self.headings.append((len(self.lines), _TITLE_LEVEL, title))
        self.lines.append(f"# {title}")
        for mark, note in found:
            self.lines.append(f"{mark} {self._flat(note)}".lstrip())

    def _add_paragraph(self, paragraph: Any) -> None:
        text, number, depth = self._text(paragraph)
        if not text:
            return
        frame = child(child(paragraph, "pPr"), "framePr")
        if value(frame, "dropCap") in {"drop", "margin"}:
            self._initial = text
            return
        text, self._initial = self._initial + text, ""
        level = _outline_level(child(paragraph, "pPr"))
        level = self._style(paragraph).level if level is None else level
        if level is not None:
            shown = f"{number} {text}" if number != BULLET else text
            title = " ".join(shown.split())
            self._blank()
            self.headings.append((len(self.lines), level, title))
            self.lines += [f"{'#' * min(max(level, 1), 6)} {title}", ""]
            return
        if not number:
            self._blank()
            self.lines += [*text.split("\n"), ""]
            return
        indent = "  " * depth
        first, *others = text.split("\n")
        self.lines += [f"{indent}{number} {first}", *(f"{indent}  {line}" for line in others)]

    def _style(self, paragraph: Any) -> _Style:
        name = value(child(child(paragraph, "pPr"), "pStyle"))
        return self._styles.get(name or "", _Style())

    def _text(self, paragraph: Any) -> tuple[str, str, int]:
        """Return a paragraph's text, its number or bullet, and its level in the list."""
        style = self._style(paragraph)
        name, depth = _list(child(paragraph, "pPr"))
        if name is None:
            name, depth = style.list, depth or style.depth
        # Paragraphs without text count as well.
        number = self._numbers.next(name, depth) if name is not None else ""
        return self._runs.text(paragraph, style.run).strip(), number, depth

    def _rows(self, table: Any) -> list[str]:
        """Return one line per row, with bars between the columns.

        A cell that is merged with those below is repeated in them if it is short.
        """
        above: dict[int, str] = {}
        lines = []
        for row in _nested(table, {"tr"}):
            properties = child(row, "trPr")
            if child(properties, "del") is not None:
                self.left_out["tracked deletions"] += 1
                continue
            columns = [""] * _span(child(properties, "gridBefore"), 0)
            for cell in _nested(row, {"tc"}):
                at, text = len(columns), self._flat(cell)
                properties = child(cell, "tcPr")
                merged = child(properties, "vMerge")
                if merged is None:
                    above.pop(at, None)
                elif value(merged) == "restart":
                    above[at] = text if len(text) <= _MAX_REPEATED_CHARS else ""
                else:
                    text = text or above.get(at, "")
                columns += [text] + [""] * (_span(child(properties, "gridSpan"), 1) - 1)
            if any(columns):
                lines.append(" | ".join(columns).strip())
        return lines

    def _flat(self, parent: Any) -> str:
        """Return the text of paragraphs and tables in one line."""
        texts = []
        for block in _nested(parent, _BLOCKS):
            if local(block) == "tbl":
                texts += self._rows(block)
            else:
                text, number, _ = self._text(block)
                texts.append(f"{number} {text}" if text and number else text)
        return " ".join(" ".join(texts).split())

    def _blank(self) -> None:
        if self.lines and self.lines[-1]:
            self.lines.append("")


def _span(setting: Any, default: int) -> int:
    given = value(setting) or ""
    return min(int(given), _MAX_COLUMNS) if given.isdecimal() else default


def _nested(parent: Any, names: Collection[str]) -> Iterator[Any]:
    """Yield the outermost elements of these names, also inside controls and insertions."""
    for element in parent:
        name = local(element)
        if name in names:
            yield element
        elif name not in LEFT_OUT:
            yield from _nested(element, names)
