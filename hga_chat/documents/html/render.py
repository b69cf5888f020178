"""Renders HTML as text: every block on lines of its own, each with its line in the source.

Tags are handled as a stream, without building a tree, so that deep nesting and broken markup do no
harm.
"""

import re
from collections import Counter
from html.parser import HTMLParser

from hga_chat.documents.html.line_writer import LineWriter, Row
from hga_chat.documents.html.tags import (
    BLOCKS,
    CELLS,
    END_HEADINGS,
    HEADINGS,
    NOT_TEXT,
    PARAGRAPHS,
    VOID,
)
from hga_chat.documents.plain.extracted_text import ExtractedText

_Attributes = list[tuple[str, str | None]]

_HIDDEN_STYLE = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\f\v\u00a0]+")
_INVISIBLE = dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF))
# Self-closing elements of XHTML, which an HTML parser would leave open.
_CLOSED_AT_ONCE = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)((?:\s[^<>]*)?)/>")

_CDATA = "<![CDATA["
_MAX_TABLE_DEPTH = 8


def render(text: str, *, keep_lines: bool = False, drop_navigation: bool = True) -> ExtractedText:
    """Return the text of an HTML page with its headings and anchors.

    Scripts, styles, controls, hidden elements and, on request, navigation are left out. Links keep
    their text, images their description, lists their markers; a table row becomes one line.

    Args:
        text: HTML or XHTML.
        keep_lines: Whether to keep the line ends of the source within paragraphs.
        drop_navigation: Whether to leave out ``nav`` elements and others with that role.
    """
    if text.lstrip()[:5].lower() == "<?xml":
        text = _CLOSED_AT_ONCE.sub(_close, text)
    page = _Page(keep_lines, drop_navigation)
    page.feed(text)
    page.close()
    return page.result()


def _close(match: re.Match[str]) -> str:
    name = match[1]
    return match[0] if name.lower() in VOID else f"<{name}{match[2]}></{name}>"


class _Page(HTMLParser):
    def __init__(self, keep_lines: bool, drop_navigation: bool) -> None:
        super().__init__()
        self._keep_lines = keep_lines
        self._drop_navigation = drop_navigation
        self._open: list[str] = []
        self._counts: Counter[str] = Counter()
        self._hidden_at: int | None = None
        self._writers = [LineWriter()]
        self._rows: list[Row] = []
        self._cells_apart: list[bool] = []
        self._begins_pre = False
        self._line: list[str] = []
        self._line_number = 1
        self._heading: int | None = None
        self._title: list[str] = []

    def result(self) -> ExtractedText:
        """Return the text once everything has been fed."""
        while self._open:
            self.handle_endtag(self._open[-1])
        self._end_line()
        page = self._writers[0]
        title = " ".join("".join(self._title).split())
        return ExtractedText(page.lines, page.headings, page.numbers, title, page.anchors)

    def handle_starttag(self, tag: str, attrs: _Attributes) -> None:
        """Open an element."""
        if tag in VOID:
            self._void(tag, attrs)
            return
        if tag == "li":
            self._close_within({"li"}, {"ul", "ol"})
        elif tag in CELLS or tag == "tr":
            self._close_within({*CELLS, tag}, {"table"} if tag == "tr" else {"table", "tr"})
        self._open.append(tag)
        self._counts[tag] += 1
        if self._hidden_at is None:
            if self._is_hidden(tag, attrs):
                self._hidden_at = len(self._open)
            else:
                self._enter(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """Close an element and those left open inside it."""
        if not self._counts[tag]:
            if tag == "p" and self._hidden_at is None and self._heading is None:
                self._break(tag)
            return
        while True:
            name = self._open.pop()
            if self._hidden_at is None:
                self._leave(name)
            elif len(self._open) < self._hidden_at:
                self._hidden_at = None
            self._counts[name] -= 1
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        """Add text."""
        if self._hidden_at is not None:
            if self._open[-1:] == ["title"] and self._hidden_at == len(self._open):
                self._title.append(data)
            return
        number = self.getpos()[0]
        is_pre = bool(self._counts["pre"])
        if self._begins_pre and data.startswith("\n"):
            data, number = data[1:], number + 1
        self._begins_pre = False
        for index, part in enumerate(data.translate(_INVISIBLE).split("\n")):
            if index and is_pre and self._heading is None:
                self._end_line(keep_empty=True)
            elif index and self._keep_lines and self._heading is None:
                self._end_line()
            elif index:
                self._add(" ", number + index)
            self._add(part if is_pre else _SPACE.sub(" ", part), number + index)

    def parse_marked_section(self, i: int, report: int = 1) -> int:  # noqa: ARG002
        """Add the text of CDATA; skip other marked sections, on which the parser would fail."""
        is_text = self.rawdata.startswith(_CDATA, i)
        mark = "]]>" if is_text else ">"
        end = self.rawdata.find(mark, i)
        if is_text and end >= 0:
            self.handle_data(self.rawdata[i + len(_CDATA) : end])
        return end + len(mark) if end >= 0 else -1

    def _add(self, text: str, number: int) -> None:
        if not self._line:
            if not text.strip() and not (text and self._counts["pre"]):
                return
            self._line_number = number
        self._line.append(text)

    def _is_hidden(self, tag: str, attrs: _Attributes) -> bool:
        values = dict(attrs)
        if tag in NOT_TEXT or "hidden" in values or values.get("aria-hidden") == "true":
            return True
        if _HIDDEN_STYLE.search(values.get("style") or ""):
            return True
        is_navigation = tag == "nav" or values.get("role") in {"navigation", "search"}
        return self._drop_navigation and is_navigation

    def _void(self, tag: str, attrs: _Attributes) -> None:
        if self._hidden_at is not None:
            return
        if tag == "br":
            if self._heading is None:
                self._end_line(keep_empty=bool(self._counts["pre"]))
            else:
                self._add(" ", self._line_number)
        elif tag == "hr":
            self._break(tag)
        elif tag == "img":
            words = " ".join((dict(attrs).get("alt") or "").split())
            if words:
                self._add(f"[image: {words}]", self.getpos()[0])

    def _enter(self, tag: str, attrs: _Attributes) -> None:
        writer = self._writers[-1]
        if tag in BLOCKS and (self._heading is None or tag in END_HEADINGS):
            self._break(tag)
            writer.has_blocks |= tag in {"pre", "ul", "ol", "table"}
        elif tag in BLOCKS:
            self._add(" ", self._line_number)
        values = dict(attrs)
        for name in ("id", "name"):
            if values.get(name):
                writer.anchors.setdefault(str(values[name]), len(writer.lines))
        if tag in HEADINGS:
            self._heading = HEADINGS[tag]
        elif tag == "pre":
            self._begins_pre = True
        elif tag == "ul":
            writer.lists.append(None)
        elif tag == "ol":
            start = values.get("start") or "1"
            writer.lists.append(int(start) if re.fullmatch(r"\d{1,6}", start) else 1)
        elif tag == "li":
            writer.marker = "- "
            if writer.lists and writer.lists[-1] is not None:
                writer.marker = f"{writer.lists[-1]}. "
                writer.lists[-1] += 1
        elif tag == "dd":
            writer.marker = "  "
        elif tag == "blockquote":
            writer.quotes += 1
        elif tag == "tr":
            self._write_cells()
            self._rows.append(Row(len(self._writers)))
        elif tag in CELLS:
            is_apart = bool(self._rows) and len(self._writers) <= _MAX_TABLE_DEPTH
            self._cells_apart.append(is_apart)
            if is_apart:
                self._writers.append(LineWriter())

    def _leave(self, tag: str) -> None:
        if tag in HEADINGS:
            self._end_heading()
        if tag in BLOCKS and self._heading is None:
            self._break(tag, is_end=True)
        elif tag in BLOCKS:
            self._add(" ", self._line_number)
        writer = self._writers[-1]
        if tag in {"ul", "ol"} and writer.lists:
            writer.lists.pop()
        elif tag in {"li", "dd"}:
            writer.marker = ""
        elif tag == "blockquote" and writer.quotes:
            writer.quotes -= 1
        elif tag in CELLS and self._cells_apart.pop():
            self._rows[-1].cells.append(self._writers.pop())
        elif tag == "tr":
            self._writers[-1].write_row(self._rows.pop().cells)

    def _close_within(self, tags: set[str], borders: set[str]) -> None:
        """Close the open elements ``tags`` inside the innermost element of ``borders``."""
        if not any(map(self._counts.__getitem__, tags)):
            return
        end = len(self._open)
        for index in range(end - 1, -1, -1):
            if self._open[index] in borders:
                break
            if self._open[index] in tags:
                end = index
        while len(self._open) > end:
            self.handle_endtag(self._open[-1])

    def _break(self, tag: str, *, is_end: bool = False) -> None:
        self._end_heading()
        self._end_line()
        is_inner_list = tag in {"ul", "ol"} and len(self._writers[-1].lists) > is_end
        if tag in PARAGRAPHS and not is_inner_list:
            self._writers[-1].needs_blank = True

    def _end_heading(self) -> None:
        level, self._heading = self._heading, None
        if level is None:
            return
        title = " ".join("".join(self._line).split()).strip("¶§ ")
        self._line.clear()
        if title:
            writer = self._writers[-1]
            writer.has_blocks = True
            self._write(f"{'#' * level} {title}", self._line_number)
            writer.headings.append((len(writer.lines) - 1, level, title))

    def _end_line(self, *, keep_empty: bool = False) -> None:
        text = "".join(self._line)
        self._line.clear()
        text = text.rstrip() if self._counts["pre"] else _SPACE.sub(" ", text).strip()
        if text:
            self._write(text, self._line_number)
        elif keep_empty and self._writers[-1].lines:
            self._write("", self._writers[-1].numbers[-1])

    def _write(self, text: str, number: int) -> None:
        self._write_cells()
        self._writers[-1].write(text, number)

    def _write_cells(self) -> None:
        """Write the open row's finished cells; the text to come is, wrongly, between cells."""
        row = self._rows[-1] if self._rows else None
        if row and row.cells and row.level == len(self._writers):
            cells, row.cells = row.cells, []
            self._writers[-1].write_row(cells)
