"""Streaming Markdown: finished blocks are split off and rendered to styled lines."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from textual.content import Content
from textual.highlight import highlight

from hga_chat.screen.transcript.math_rules import CLOSING, add_math

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
_ITEM = re.compile(r"^ ?(?:[-*+]|(\d{1,9})[.)])(?:\s+\S|$)")
_HEADING = re.compile(r"^ {0,3}#{1,6}(?:\s|$)")
_BULLETS = ("•", "◦", "▪")

HEADING_STYLES = ("bold underline $text-primary", "bold $text-primary", "bold")
CODE_STYLE = "$text-warning"
LINK_STYLE = "underline $text-accent"
QUIET_STYLE = "$foreground 70%"
_EMPHASIS = {"strong_open": "bold", "em_open": "italic", "s_open": "strike"}


@dataclass(frozen=True)
class Block:
    """A block of Markdown; with ``gap`` an empty line comes before it."""

    text: str
    gap: bool


class BlockSplitter:
    """Splits a stream of Markdown into blocks that later text cannot change.

    A block is a paragraph, a heading, a table, a quotation, a code fence, a formula between lines
    of its own or one item of the outermost list with everything nested in it.
    """

    def __init__(self) -> None:
        self._partial = ""
        self._lines: list[str] = []
        self._fence: str | None = None
        self._blanks = 0
        self._gap = False
        self._is_first = True

    @property
    def tail(self) -> Block:
        """The unfinished block."""
        lines = [*self._lines, *[""] * self._blanks, self._partial]
        return Block("\n".join(lines).rstrip("\n"), self._gap)

    @property
    def in_fence(self) -> bool:
        """Whether the tail is an open code fence."""
        return self._fence is not None

    def push(self, text: str) -> list[Block]:
        """Add text; return the blocks that it finishes."""
        *lines, self._partial = (self._partial + text).split("\n")
        return [block for line in lines if (block := self._line(line)) is not None]

    def finish(self) -> list[Block]:
        """End the text; return the remaining blocks."""
        blocks = self.push("\n") if self._partial else []
        self._fence = None
        last = self._close()
        return [*blocks, last] if last else blocks

    def _line(self, line: str) -> Block | None:
        if self._fence is not None:
            self._lines.append(line)
            bare = line.strip()
            if self._fence in CLOSING.values():
                is_closed = bare.endswith(self._fence)
            else:
                is_closed = bare.startswith(self._fence) and not bare.strip(self._fence[0])
            if is_closed:
                self._fence = None
                return None if self._is_item else self._close()
            return None
        if not line.strip():
            self._blanks += bool(self._lines)
            return None
        finished = self._close() if self._begins_block(line) else None
        if finished is None and self._blanks:
            self._lines += [""] * self._blanks
        if finished is not None:
            follows_item = bool(_ITEM.match(finished.text.split("\n", 1)[0]))
            is_standing = bool(_HEADING.match(line) or _FENCE.match(line))
            was_standing = bool(_HEADING.match(finished.text))
            tight_item = bool(_ITEM.match(line)) and not was_standing
            self._gap = bool(self._blanks) or is_standing or not (follows_item or tight_item)
        elif not self._lines:
            self._gap = not self._is_first
        self._blanks = 0
        self._lines.append(line)
        fence = _FENCE.match(line)
        if fence and (len(fence[1]) < 4 or self._is_item) and "`" not in fence[3]:
            self._fence = fence[2]
        self._fence = self._fence or CLOSING.get(line.strip())
        return finished

    @property
    def _is_item(self) -> bool:
        return bool(self._lines) and bool(_ITEM.match(self._lines[0]))

    def _begins_block(self, line: str) -> bool:
        if not self._lines:
            return False
        item = _ITEM.match(line)
        if self._is_item:
            return bool(item or _HEADING.match(line)) or (
                not line.startswith("  ")
                and (self._blanks > 0 or bool(_FENCE.match(line)) or line.strip() in CLOSING)
            )
        if self._blanks or _HEADING.match(self._lines[0]) or _HEADING.match(line):
            return True
        if item:
            # Within a paragraph only 1 begins a list; "born in\n1986. …" does not.
            return item[1] in (None, "1")
        return bool(_FENCE.match(line)) or line.strip() in CLOSING

    def _close(self) -> Block | None:
        if not self._lines:
            return None
        block = Block("\n".join(self._lines), self._gap)
        self._lines = []
        self._is_first = False
        return block


@dataclass(frozen=True)
class Line:
    """A line before wrapping, with the bullets, bars or indentation left of it."""

    content: Content
    first: Content = field(default_factory=Content)
    rest: Content = field(default_factory=Content)


@dataclass(frozen=True)
class Table:
    """A table; the first row is its head, ``indent`` is left of every line."""

    rows: tuple[tuple[Content, ...], ...]
    indent: Content
    is_right: tuple[bool, ...] = ()
    """For each column, whether its cells are aligned at the right."""


Part = Line | Table


def render(markdown: str, *, colours: bool = True) -> list[Part]:
    """Turn Markdown into styled lines.

    Args:
        markdown: text that is safe to show; it is not interpreted as the screen's markup.
        colours: whether to highlight code, which pays for finished blocks only.
    """
    return _Renderer(colours).render(_parser().parse(markdown))


def plain_fence(markdown: str) -> list[Part] | None:
    """Render a code fence, closed or open, without colours; None if it is not at the top level."""
    first, _, code = markdown.partition("\n")
    opening = _FENCE.match(first)
    if not opening or first.startswith(" "):
        return None
    lines = code.expandtabs(4).split("\n") if code else []
    last = lines[-1].strip() if lines else ""
    if last.startswith(opening[2]) and not last.strip(opening[2][0]):
        lines.pop()
    return [_code_line(line) for line in lines]


@lru_cache(maxsize=1024)
def _code_line(line: str) -> Line:
    bar = Content.styled("▏ ", QUIET_STYLE)
    return Line(Content.styled(line, CODE_STYLE), bar, bar)


def open_table(markdown: str) -> list[Part] | None:
    """Render a growing table, parsing each row once; None if the text is not a table."""
    lines = markdown.split("\n")
    if len(lines) < 4 or not lines[0].lstrip().startswith("|") or not lines[2].startswith("|"):
        return None
    head = "\n".join(lines[:2])
    rows = [_table_row(head, line) for line in lines[2:]]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return None
    (table,) = _table(head)
    return [Table((table.rows[0], *known), table.indent, table.is_right)]


@lru_cache(maxsize=64)
def _table(markdown: str) -> tuple[Table, ...]:
    return tuple(part for part in render(markdown, colours=False) if isinstance(part, Table))


@lru_cache(maxsize=512)
def _table_row(head: str, line: str) -> tuple[Content, ...] | None:
    found = _table(f"{head}\n{line}") if line.startswith("|") else ()
    return found[0].rows[1] if found and len(found[0].rows) == 2 else None


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    # Raw HTML stays text; entities stay as written.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return add_math(parser)


@dataclass
class _Container:
    first: Content
    rest: Content

    def take(self) -> Content:
        first, self.first = self.first, self.rest
        return first


class _Renderer:
    def __init__(self, colours: bool) -> None:
        self._colours = colours
        self._parts: list[Part] = []
        self._containers: list[_Container] = []
        self._numbers: list[int | None] = []
        self._gap = False

    def render(self, tokens: list[Token]) -> list[Part]:
        rows: list[tuple[Content, ...]] = []
        cells: list[Content] = []
        is_right: list[bool] = []
        heading = 0
        for index, token in enumerate(tokens):
            kind = token.type
            if kind == "inline":
                content = _inline(token.children or [])
                if tokens[index - 1].type in ("th_open", "td_open"):
                    cells.append(content)
                elif heading:
                    self._text(content.stylize(HEADING_STYLES[min(heading, 3) - 1]))
                else:
                    self._text(content)
            elif kind == "heading_open":
                heading = int(token.tag[1:])
            elif kind == "heading_close":
                heading = 0
                self._gap = True
            elif kind == "paragraph_close":
                self._gap = not token.hidden
            elif kind in ("fence", "code_block"):
                self._code(token.content, token.info.split()[0] if token.info.split() else "")
            elif kind == "math_block":
                self._gap = self._gap or bool(self._parts)
                self._text(Content(token.content), Content("  "))
                self._gap = True
            elif kind == "hr":
                self._text(Content.styled("─" * 24, QUIET_STYLE))
                self._gap = True
            elif kind in ("bullet_list_open", "ordered_list_open"):
                ordered = kind.startswith("ordered")
                self._numbers.append(int(token.attrs.get("start", 1)) if ordered else None)
            elif kind == "list_item_open":
                self._containers.append(self._item())
            elif kind == "blockquote_open":
                bar = Content.styled("▎ ", QUIET_STYLE)
                self._containers.append(_Container(bar, bar))
            elif kind in ("list_item_close", "blockquote_close"):
                self._containers.pop()
                self._gap = self._gap or kind == "blockquote_close"
            elif kind in ("bullet_list_close", "ordered_list_close"):
                self._numbers.pop()
                self._gap = not self._numbers
            elif kind == "th_open":
                is_right.append(token.attrs.get("style") == "text-align:right")
            elif kind == "tr_close":
                rows.append(tuple(cells))
                cells = []
            elif kind == "table_close":
                self._table(rows, is_right)
                rows, is_right = [], []
        return self._parts

    def _item(self) -> _Container:
        number = self._numbers[-1]
        if number is None:
            bullet = _BULLETS[min(len(self._numbers), len(_BULLETS)) - 1]
        else:
            bullet = f"{number}."
            self._numbers[-1] = number + 1
        mark = Content.styled(f"{bullet} ", "$text-accent")
        return _Container(mark, Content(" " * mark.cell_length))

    def _rest(self) -> Content:
        return Content("").join([container.rest for container in self._containers])

    def _separate(self) -> None:
        if self._gap and self._parts:
            self._parts.append(Line(Content(""), self._rest(), self._rest()))
        self._gap = False

    def _text(self, content: Content, gutter: Content | None = None) -> None:
        self._separate()
        for line in content.split("\n", allow_blank=True):
            first = Content("").join([container.take() for container in self._containers])
            rest = self._rest()
            if gutter is not None:
                first, rest = first + gutter, rest + gutter
            self._parts.append(Line(line, first, rest))

    def _code(self, code: str, language: str) -> None:
        text = code.removesuffix("\n").expandtabs(4)
        content = highlight(text, language=language) if self._colours and language else None
        # The highlighter drops what it takes for line ends; the code is then shown plain.
        if content is None or content.plain != text:
            content = Content.styled(text, CODE_STYLE)
        self._gap = self._gap or bool(self._parts)
        self._text(content, Content.styled("▏ ", QUIET_STYLE))
        self._gap = True

    def _table(self, rows: list[tuple[Content, ...]], is_right: list[bool]) -> None:
        self._gap = self._gap or bool(self._parts)
        self._separate()
        self._parts.append(Table(tuple(rows), self._rest(), tuple(is_right)))
        self._gap = True


def _inline(tokens: list[Token]) -> Content:
    """Return text with its emphasis; links show their target."""
    pieces: list[tuple[str, str]] = []
    styles: list[str] = []
    links: list[tuple[str, int]] = []
    for token in tokens:
        kind = token.type
        if kind in _EMPHASIS:
            styles.append(_EMPHASIS[kind])
        elif kind == "link_open":
            styles.append(LINK_STYLE)
            links.append((str(token.attrs.get("href", "")), len(pieces)))
        elif kind == "link_close":
            styles.pop()
            href, begin = links.pop()
            if href != "".join(text for text, _ in pieces[begin:]):
                pieces.append((f" ({href})", QUIET_STYLE))
        elif kind.endswith("_close"):
            styles.pop()
        elif kind in ("softbreak", "hardbreak"):
            pieces.append(("\n", ""))
        elif kind == "code_inline":
            pieces.append((token.content, " ".join([*styles, CODE_STYLE])))
        else:
            pieces.append((token.content, " ".join(styles)))
    return Content.assemble(*pieces)
