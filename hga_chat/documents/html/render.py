"""Renders HTML as text: every block on lines of its own, each with its line in the source."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, islice

from hga_chat.documents.html import katex, mathml
from hga_chat.documents.html.line_writer import LineWriter, Numbering
from hga_chat.documents.html.styles import (
    BLOCK_DISPLAYS,
    StyleSheets,
    declarations,
    font_family,
    is_moved,
    shift,
)
from hga_chat.documents.html.tags import (
    BLOCKS,
    BOXES,
    CELLS,
    END_HEADINGS,
    HEADINGS,
    LISTS,
    NOT_SHOWN,
    PARAGRAPHS,
    PREFORMATTED,
    ROW_GROUPS,
    STRUCK,
    TEX_SCRIPTS,
    UNNUMBERED_LISTS,
)
from hga_chat.documents.html.tree import Element, Text, parse
from hga_chat.documents.plain.extracted_text import ExtractedText
from hga_chat.documents.plain.scripts import script
from hga_chat.documents.plain.table_grid import Grid

_SPACE = re.compile(r"[ \t\n\r\f\v\u00a0]+")
# Between Chinese and Japanese characters, a line end of the source is no space.
_EAST_ASIAN = (
    "[\u2e80-\u312f\u31a0-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\U00020000-\U0003ffff]"
)
_LINE_END = re.compile(rf"(?<={_EAST_ASIAN})[ \t]*\n[ \t\n]*(?={_EAST_ASIAN})")
_INVISIBLE = dict.fromkeys((0x00AD, 0x200B, 0x2060, 0xFEFF))
_INTEGER = re.compile(r"\s*([+-]?\d{1,6})")
_TEX_IMAGE = re.compile(r"\b(?:tex|latex|math|mwe-math\S*)\b", re.IGNORECASE)
_NUMBERINGS = {
    "decimal": "1",
    "decimal-leading-zero": "1",
    "lower-alpha": "a",
    "lower-latin": "a",
    "upper-alpha": "A",
    "upper-latin": "A",
    "lower-roman": "i",
    "upper-roman": "I",
    "disc": None,
    "circle": None,
    "square": None,
}
_SYMBOL_FONT = re.compile(r"symbol(?:$|\W|mt)|wingdings|webdings|zapfdingbats", re.IGNORECASE)
_CHECKS = {"checkbox": "☑☐", "radio": "◉○"}
_INPUTS_WITHOUT_TEXT = frozenset({"hidden", "password", "file", "color", "range"})
_NOTE_ROLES = frozenset({"doc-noteref", "noteref"})
_MAX_NOTE_CHARS = 8
_MAX_TABLE_DEPTH = 8
_NEAR_ELEMENTS = 8
_MAX_SPAN = 1000


def render(
    text: str,
    *,
    keep_lines: bool = False,
    drop_navigation: bool = True,
    load_sheet: Callable[[str], str] = lambda _: "",
) -> ExtractedText:
    """Return the text of an HTML page with its headings and anchors.

    What a browser does not show is left out, and on request navigation. Links keep their text,
    images their description, lists their markers; a table row becomes one line; raised and lowered
    text and formulas are written in one line; form controls show their values.

    Args:
        text: HTML or XHTML.
        keep_lines: Whether to keep the line ends of the source within paragraphs.
        drop_navigation: Whether to leave out ``nav`` elements and others with that role.
        load_sheet: Returns the style sheet that a link refers to; empty if there is none.
    """
    root, sheets = parse(text), StyleSheets()
    for element in root.descendants():
        if element.tag == "style":
            sheets.add(element.text())
        elif element.tag == "link" and "stylesheet" in element.attributes.get("rel", "").lower():
            sheets.add(load_sheet(element.attributes.get("href", "")))
    page = _Page(keep_lines, drop_navigation, sheets)
    page.walk(root)
    return page.result(text.count("\n") + 1)


@dataclass(slots=True)
class _Open:
    """An open element, and what is to be done when it ends."""

    element: Element
    is_block: bool = False
    is_shown: bool = True
    mark: int = 0
    """How many pieces the current line had when the element began."""
    lines: int = 0
    """How many lines were ended by then."""
    around: str = ""
    """How to rewrite the element's text when it ends."""
    is_cell: bool = False
    is_pre: bool = False
    font: str = ""
    is_apart: bool = False
    """Whether a space is before and after it."""


@dataclass(slots=True)
class _Row:
    """An open table row; ``level`` counts the writers that were open when it began."""

    level: int
    cells: list[tuple[LineWriter, str, int, int]] = field(default_factory=list)


class _Page:
    def __init__(self, keep_lines: bool, drop_navigation: bool, sheets: StyleSheets) -> None:
        self._sheets = sheets
        self._keep_lines = keep_lines
        self._drop_navigation = drop_navigation
        self._open: list[_Open] = [_Open(Element("#document"))]
        self._writers = [LineWriter()]
        self._grids: list[Grid[LineWriter]] = []
        self._rows: list[_Row] = []
        self._line: list[str] = []
        self._line_number = 1
        self._ended_lines = 0
        self._pre = 0
        self._svg = 0
        self._links = 0
        self._heading: int | None = None
        self._title: str | None = None
        self._left_out: Counter[str] = Counter()

    def walk(self, root: Element) -> None:
        """Add everything below an element."""
        waiting: list[Iterator[Element | Text]] = [iter(root.children)]
        while waiting:
            node = next(waiting[-1], None)
            if node is None:
                waiting.pop()
                if waiting:
                    self._leave(self._open.pop())
            elif isinstance(node, Text):
                self._data(node)
            elif self._enter(node):
                waiting.append(iter(node.children))

    def result(self, last_line: int) -> ExtractedText:
        """Return the text once everything has been added."""
        self._end_heading()
        self._end_line()
        page = self._writers[0]
        # Elements that a parser moves, such as text between table cells, are out of order.
        numbers = [min(number, last_line) for number in accumulate(page.numbers, max)]
        title = " ".join((self._title or "").split())
        return ExtractedText(
            page.lines, page.headings, numbers, title, page.anchors, dict(self._left_out)
        )

    def _enter(self, element: Element) -> bool:
        """Open an element; return whether its children are to be added."""
        tag, values = element.tag, element.attributes
        style = declarations(values.get("style", ""))
        if self._is_left_out(element, style):
            return False
        style = self._sheets.style(tag, values.get("class", "")) | style
        is_shown = self._open[-1].is_shown
        if "visibility" in style:
            is_shown = style["visibility"] not in {"hidden", "collapse"}
        if self._is_replaced(element, is_shown=is_shown):
            return False
        is_block = tag in BLOCKS or style.get("display") in BLOCK_DISPLAYS
        self._begin_block(tag, is_block=is_block)
        opened = _Open(element, is_block, is_shown)
        font = font_family(style) or (values.get("face", "") if tag == "font" else "")
        opened.font = font or self._open[-1].font
        own = (child.data for child in element.children if isinstance(child, Text))
        opened.is_apart = not self._pre and is_moved(style, "".join(own))
        if opened.is_apart:
            self._add(" ", element.line)
        opened.is_pre = tag in PREFORMATTED or style.get("white-space", "").startswith("pre")
        self._pre += opened.is_pre
        self._svg += tag == "svg"
        self._links += tag == "a"
        self._add_anchors(values)
        self._begin(opened, style)
        opened.mark, opened.lines = len(self._line), self._ended_lines
        opened.around = self._rewriting(element, style)
        self._open.append(opened)
        return True

    def _is_left_out(self, element: Element, style: dict[str, str]) -> bool:
        """Whether an element is not shown; its kind is counted."""
        tag, values = element.tag, element.attributes
        display = style.get("display", "none" if _is_hidden(values) else "")
        kind = ""
        if tag == "title" and not self._svg:
            if self._title is None:
                self._title = element.text()
            return True
        if tag == "script" and values.get("type", "").split(";")[0].strip() in TEX_SCRIPTS:
            self._add(f"${' '.join(element.text().split())}$", element.line)
            return True
        if tag in NOT_SHOWN and not (tag == "iframe" and "srcdoc" in values):
            kind = NOT_SHOWN[tag] or ""
            is_empty = not (element.text().strip() or values.get("src") or values.get("data"))
            if kind and not is_empty:
                self._left_out[kind] += 1
            return True
        if display == "none" or (tag == "dialog" and "open" not in values):
            kind = "hidden text"
        elif values.get("aria-hidden") == "true" and self._is_duplicate(element):
            return True
        elif self._drop_navigation and (
            tag == "nav" or values.get("role") in {"navigation", "search"}
        ):
            kind = "navigation"
        if kind and element.text().strip():
            self._left_out[kind] += 1
        return bool(kind)

    def _is_duplicate(self, element: Element) -> bool:
        """Whether what screen readers skip is an icon, or how a formula beside it looks."""
        is_formula = "katex-html" in element.attributes.get("class", "")
        if not is_formula and not any(map(str.isalnum, element.text())):
            return True
        for near in islice(self._open[-1].element.elements(), _NEAR_ELEMENTS):
            if near is element:
                continue
            if near.tag == "math" or any(
                child.tag == "math" for child in islice(near.elements(), _NEAR_ELEMENTS)
            ):
                return True
        return False

    def _is_replaced(self, element: Element, *, is_shown: bool) -> bool:
        """Add an element whose children are not text of the page; whether it is one."""
        tag, values = element.tag, element.attributes
        text = ""
        if tag == "br":
            if self._heading is None:
                self._end_line(keep_empty=bool(self._pre))
            else:
                self._add(" ", element.line)
            return True
        if tag == "hr":
            self._break(tag)
            return True
        if tag == "math":
            text = mathml.linear(element)
        elif "katex-html" in values.get("class", ""):
            text = katex.linear(element)
        elif tag in {"img", "area", "image"}:
            text = self._image(values)
        elif tag == "input":
            text = _input(values)
        elif tag == "select":
            text = f" {_selected(element)} "
        elif tag in {"title", "desc"} and self._svg:
            words = " ".join(element.text().split())
            text = f"[image: {words}] " if words else ""
        elif tag not in {"wbr", "col", "meta", "link", "base", "source", "track"}:
            return False
        if text and is_shown:
            self._add(text, element.line)
        return True

    def _image(self, values: dict[str, str]) -> str:
        words = " ".join(values.get("alt", values.get("title", "")).split())
        if not words:
            self._left_out["images without a description"] += "alt" not in values
            return ""
        if words.startswith("{\\displaystyle") or (
            "\\" in words and _TEX_IMAGE.search(values.get("class", ""))
        ):
            return f"${words}$"
        return f"[image: {words}]"

    def _add_anchors(self, values: dict[str, str]) -> None:
        writer = self._writers[-1]
        for name in ("id", "name"):
            if values.get(name):
                writer.anchors.setdefault(values[name], len(writer.lines))

    def _begin_block(self, tag: str, *, is_block: bool) -> None:
        if not is_block:
            if tag in BOXES:
                self._add(" ", self._line_number)
        elif self._heading is None or tag in END_HEADINGS:
            self._break(tag)
            self._writers[-1].has_blocks |= tag in {"pre", "table"}
        else:
            self._add(" ", self._line_number)

    def _begin(self, opened: _Open, style: dict[str, str]) -> None:
        element = opened.element
        tag, values = element.tag, element.attributes
        writer = self._writers[-1]
        if tag in HEADINGS:
            self._heading = HEADINGS[tag]
        elif values.get("role") == "heading" and self._heading is None:
            opened.is_block = True
            self._break("h2")
            self._heading = max(1, min(_integer(values.get("aria-level", "")) or 2, 6))
        elif tag in LISTS:
            writer.lists.append(_numbering(element, style))
        elif tag == "li":
            value, kind = _integer(values.get("value", "")), values.get("type")
            numbering = writer.lists[-1] if writer.lists else Numbering(None)
            writer.marker = numbering.next(value, kind if kind and kind in "1aAiI" else None)
        elif tag == "dd":
            writer.lists.append(Numbering(None))
        elif tag == "blockquote":
            writer.quotes += 1
        elif tag == "q":
            self._add("“", element.line)
        elif tag == "table":
            self._grids.append(Grid())
        elif tag == "tr" and self._grids:
            self._rows.append(_Row(len(self._writers)))
        elif tag in CELLS and self._rows and len(self._writers) <= _MAX_TABLE_DEPTH:
            opened.is_cell = self._rows[-1].level == len(self._writers)
            if opened.is_cell:
                self._writers.append(LineWriter())
        elif tag == "iframe":
            element.children = parse(values["srcdoc"]).children

    def _rewriting(self, element: Element, style: dict[str, str]) -> str:
        """Return how to rewrite the text of an element, by name; empty if it stays as it is."""
        tag, values = element.tag, element.attributes
        align = shift(style)
        if tag == "sup" or align == "super":
            is_note = self._links or any(
                child.tag == "a" and "#" in child.attributes.get("href", "")
                for child in islice(element.descendants(), _NEAR_ELEMENTS)
            )
            return "note" if is_note else "raised"
        if tag == "sub" or align == "sub":
            return "lowered"
        if tag == "a" and _NOTE_ROLES & {values.get("role"), values.get("epub:type")}:
            return "note"
        if tag in {"rt", "rtc"}:
            return "ruby"
        is_struck = "line-through" in (
            style.get("text-decoration", "") + style.get("text-decoration-line", "")
        )
        return "struck" if tag in STRUCK or is_struck else ""

    def _leave(self, opened: _Open) -> None:
        element = opened.element
        tag = element.tag
        if opened.around and opened.lines == self._ended_lines:
            text = "".join(self._line[opened.mark :])
            self._line[opened.mark :] = [_rewritten(text, opened.around)] if text else []
        self._svg -= tag == "svg"
        self._links -= tag == "a"
        if tag == "q":
            self._add("”", self._line_number)
        if tag in BOXES or opened.is_apart:
            self._add(" ", self._line_number)
        if tag in HEADINGS or element.attributes.get("role") == "heading":
            self._end_heading()
        if opened.is_block and self._heading is None:
            self._break(tag, is_end=True)
        elif opened.is_block:
            self._add(" ", self._line_number)
        self._pre -= opened.is_pre
        writer = self._writers[-1]
        if (tag in LISTS or tag == "dd") and writer.lists:
            writer.lists.pop()
        elif tag == "li":
            writer.marker = ""
        elif tag == "blockquote" and writer.quotes:
            writer.quotes -= 1
        elif opened.is_cell:
            cell = self._writers.pop()
            width, height = (_span(element, name) for name in ("colspan", "rowspan"))
            self._rows[-1].cells.append((cell, cell.text(), width, height))
        elif tag == "tr" and self._grids:
            self._write_row()
            self._rows.pop()
        if tag in ROW_GROUPS and self._grids:
            self._grids[-1].end_group()
            if tag == "table":
                self._grids.pop()

    def _data(self, node: Text) -> None:
        if not self._open[-1].is_shown:
            if node.data.strip():
                self._left_out["hidden text"] += 1
            return
        if self._svg and not any(
            opened.element.tag in {"text", "foreignObject"} for opened in reversed(self._open)
        ):
            return
        text = node.data.translate(_INVISIBLE)
        if _SYMBOL_FONT.match(self._open[-1].font):
            text = _in_symbols(text, self._open[-1].font)
        for index, part in enumerate(text.split("\n")):
            if index and self._pre and self._heading is None:
                self._end_line(keep_empty=True)
            elif index and self._keep_lines and self._heading is None:
                self._end_line()
            elif index:
                self._add("\n", node.line + index)
            self._add(part if self._pre else _SPACE.sub(" ", part), node.line + index)

    def _add(self, text: str, number: int) -> None:
        if not self._line:
            if not text.strip() and not (text and self._pre):
                return
            self._line_number = number
        self._line.append(text)

    def _break(self, tag: str, *, is_end: bool = False) -> None:
        self._end_heading()
        self._end_line()
        is_inner_list = tag in LISTS and len(self._writers[-1].lists) > is_end
        if tag in PARAGRAPHS and not is_inner_list:
            self._writers[-1].needs_blank = True

    def _end_heading(self) -> None:
        level, self._heading = self._heading, None
        if level is None:
            return
        title = " ".join(_LINE_END.sub("", "".join(self._line)).split()).strip("¶§ ")
        self._line.clear()
        if title:
            writer = self._writers[-1]
            writer.has_blocks = True
            self._write(f"{'#' * level} {title}", self._line_number)
            writer.headings.append((len(writer.lines) - 1, level, title))

    def _end_line(self, *, keep_empty: bool = False) -> None:
        text = "".join(self._line)
        self._line.clear()
        self._ended_lines += 1
        text = text.rstrip() if self._pre else _SPACE.sub(" ", _LINE_END.sub("", text)).strip()
        if text:
            self._write(text, self._line_number)
        elif keep_empty and self._writers[-1].lines:
            self._write("", self._writers[-1].numbers[-1])

    def _write(self, text: str, number: int) -> None:
        if self._rows and self._rows[-1].level == len(self._writers) and self._rows[-1].cells:
            # Text between cells, which only XHTML has.
            self._write_row()
        self._writers[-1].write(text, number)

    def _write_row(self) -> None:
        row = self._rows[-1]
        cells, row.cells = row.cells, []
        self._writers[-1].write_row(self._grids[-1].place(cells))


def _in_symbols(text: str, font: str) -> str:
    from hga_chat.documents.plain.symbol_fonts import shown_symbol

    return "".join(char if char.isspace() else shown_symbol(font, ord(char)) for char in text)


def _is_hidden(values: dict[str, str]) -> bool:
    # What a search within the page finds is of use here too.
    return "hidden" in values and values["hidden"].strip().lower() != "until-found"


def _rewritten(text: str, how: str) -> str:
    bare = text.strip()
    if not bare:
        return text
    if how == "raised" or how == "lowered":
        return script(text, 1 if how == "raised" else -1)
    if how == "note":
        is_plain = len(bare) > _MAX_NOTE_CHARS or not bare.isalnum()
        return text if is_plain else f"[{bare}]"
    return f"({bare})" if how == "ruby" else f"~~{bare}~~"


def _integer(text: str) -> int | None:
    found = _INTEGER.match(text)
    return int(found[1]) if found else None


def _span(element: Element, name: str) -> int:
    span = _integer(element.attributes.get(name, ""))
    if name == "rowspan" and span == 0:  # to the end of the group
        return 65_534
    return max(1, min(span or 1, _MAX_SPAN if name == "colspan" else 65_534))


def _numbering(element: Element, style: dict[str, str]) -> Numbering:
    """Return how a list numbers its items."""
    values = element.attributes
    kind = None if element.tag in UNNUMBERED_LISTS else "1"
    given = values.get("type", "")
    if given and given in "1aAiI":
        kind = given
    elif given.lower() in {"disc", "circle", "square"}:
        kind = None
    for word in (style.get("list-style-type") or style.get("list-style", "")).split():
        kind = _NUMBERINGS.get(word, kind)
    if "reversed" not in values:
        return Numbering(kind, _start(values, 1))
    items = sum(child.tag == "li" for child in element.elements())
    return Numbering(kind, _start(values, items), -1)


def _start(values: dict[str, str], default: int) -> int:
    start = _integer(values.get("start", ""))
    return default if start is None else start


def _input(values: dict[str, str]) -> str:
    """Return what an ``input`` shows."""
    kind = values.get("type", "text").strip().lower()
    if values.get("role") == "button":
        return ""
    if kind in _CHECKS:
        return f"{_CHECKS[kind]['checked' not in values]} "
    if kind in _INPUTS_WITHOUT_TEXT:
        return ""
    return f" {values.get('alt' if kind == 'image' else 'value', '')} "


def _selected(element: Element) -> str:
    """Return the chosen options of a list, or all of one that shows all."""
    options = [child for child in element.descendants() if child.tag == "option"]
    chosen = [option for option in options if "selected" in option.attributes]
    is_open = (
        "multiple" in element.attributes or (_integer(element.attributes.get("size", "")) or 1) > 1
    )
    if not chosen and not is_open:
        chosen = options[:1]
    shown = options if is_open else chosen
    words = (" ".join(o.text().split()) or o.attributes.get("label", "") for o in shown)
    return ", ".join(filter(None, words))
