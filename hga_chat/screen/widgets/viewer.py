"""A document opened at a passage, with the attention to each line beside it."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from hga_chat.display import displayable
from hga_chat.documents.plain.sections import split_lines
from hga_chat.screen.drawing.bars import QUIET
from hga_chat.screen.drawing.legend import OLD, legend, sign
from hga_chat.screen.drawing.ramp import ramp, step
from hga_chat.screen.transcript.finder import Finder
from hga_chat.screen.widgets.key_line import KeyLine

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens
    from hga_chat.documents.layout import DocumentSpan


class Place(NamedTuple):
    """Tokens ``[start, end)`` to open a document at."""

    start: int
    """Counted from the first token of all documents."""
    end: int
    name: str
    is_marked: bool = True
    """Whether its lines are marked; those of a whole document or chapter are not."""


@dataclass(frozen=True)
class TextLine:
    """A line of a document, or the heading of a section."""

    label: str
    text: str
    start: int
    """First token, counted from the first token of all documents."""
    end: int
    is_head: bool = False


def lines_of(span: "DocumentSpan") -> list[TextLine]:
    """Return the lines of a document with their tokens; several sections have headings."""
    lines: list[TextLine] = []
    for part in span.sections:
        section = part.section
        if len(span.sections) > 1:
            name = f"page {section.page}" if section.page is not None else section.label
            lines.append(TextLine("", displayable(name), part.start, part.text_start, True))
        begins = [begin for begin, _ in part.offsets]
        at = 0
        for text in split_lines(section.text):
            number = section.line_at(at)
            first = part.text_start + bisect_left(begins, at)
            at += len(text)
            last = part.text_start + bisect_left(begins, at)
            label = "" if number is None else f"{number}"
            shown = displayable(text.removesuffix("\n")).expandtabs(4)
            lines.append(TextLine(label, shown, first, max(last, first)))
    return lines


@dataclass(frozen=True)
class _Row:
    """A row of a wrapped line: the line's number, and the row's first character in it."""

    line: int
    start: int
    text: str


class DocumentLines(ScrollView, can_focus=True):
    """Wrapped lines with their numbers; a bar shows the brightness of each, as on the map."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Here and not in the viewer, where the keys with which anything scrolls would hide them.
        Binding("right", "screen.go(1)", "Next"),
        Binding("left", "screen.go(-1)", "Previous"),
        Binding("j", "scroll_down", "Down", show=False),
        Binding("k", "scroll_up", "Up", show=False),
        Binding("g", "scroll_home", "First line", show=False),
        Binding("G", "scroll_end", "Last line", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("lines--marked", "lines--number", "lines--head", "lines--match", "lines--here")
    }

    def __init__(
        self,
        lines: Sequence[TextLine],
        place: Place,
        levels: Sequence[float],
        *,
        is_plain: bool = False,
    ) -> None:
        """Set up.

        Args:
            lines: lines of the document.
            place: the passage, or the whole document.
            levels: brightness of each line, 0 to 1.
            is_plain: draw in ASCII.
        """
        super().__init__(id="lines")
        self._lines = lines
        self._opened = place
        self._levels = levels
        self._gutter = max((len(line.label) for line in lines), default=0) + 3
        self._is_plain = is_plain
        self._shown: list[_Row] = []
        self._ramp: list[Color] = []
        self._searched = ""
        self._matches: list[tuple[int, int, int]] = []
        """Line, first character and one past the last of each match."""
        self._match = -1

    @property
    def opened_text(self) -> str:
        """Text of the lines of the place."""
        return "\n".join(line.text for line in self._lines if self._is_opened(line))

    def _is_opened(self, line: TextLine) -> bool:
        place = self._opened
        return not line.is_head and line.start < place.end and line.end > place.start

    def _is_marked(self, line: TextLine) -> bool:
        return self._opened.is_marked and self._is_opened(line)

    def on_resize(self) -> None:
        """Wrap the lines; scroll to the passage the first time."""
        width = self.scrollable_content_region.width
        if width <= 0:
            return
        is_first = not self._shown
        here = self.top_line
        room = max(width - self._gutter - 1, 1)  # a cell stays free before the scrollbar
        self._shown = []
        for number, line in enumerate(self._lines):
            pieces = (
                [piece.plain for piece in Content(line.text).wrap(room)]
                if len(line.text) > room // 2 and Content(line.text).cell_length > room
                else [line.text]
            )
            at = 0
            for piece in pieces or [""]:
                at = max(line.text.find(piece, at), at)
                self._shown.append(_Row(number, at, piece))
                at += len(piece)
        self.virtual_size = Size(width, len(self._shown))
        if is_first:
            found = (n for n, line in enumerate(self._lines) if self._is_opened(line))
            here = next(found, 0)
            if here and self._lines[here - 1].is_head:
                here -= 1
        row = next((n for n, row in enumerate(self._shown) if row.line == here), 0)
        self._go(row, is_first and self._opened.is_marked)
        self.refresh()

    def _go(self, row: int, below_top: bool) -> None:
        """Scroll to a row, with a few rows before it if it is ``below_top``."""
        y = max(row - (3 if below_top else 0), 0)
        self.scroll_to(y=y, animate=False, immediate=True, force=True)

    @property
    def top_line(self) -> int:
        """Number of the first line in sight."""
        if not self._shown:
            return 0
        return self._shown[min(self.scroll_offset.y, len(self._shown) - 1)].line

    @property
    def place(self) -> TextLine | None:
        """The first marked line, or the first line in sight if no marked line is."""
        if not self._shown:
            return None
        rows = self._shown[self.scroll_offset.y :][: max(self.size.height, 1)]
        seen = [self._lines[row.line] for row in rows]
        marked = next((line for line in seen if self._is_marked(line)), None)
        return marked or next((line for line in seen if line.label), self._lines[self.top_line])

    def find(self, text: str) -> int:
        """Mark all matches and go to the next one from here; return their number."""
        self._searched = text or self._searched
        self._matches = self._found(text)
        here = self.top_line
        self._match = next((n for n, match in enumerate(self._matches) if match[0] >= here), 0)
        if self._matches:
            self.find_next(0)
        self.refresh()
        return len(self._matches)

    def _found(self, text: str) -> list[tuple[int, int, int]]:
        if not text:
            return []
        folds = text == text.lower()
        pattern = re.compile(re.escape(text), re.IGNORECASE if folds else 0)
        return [
            (number, *found.span())
            for number, line in enumerate(self._lines)
            for found in pattern.finditer(line.text)
        ]

    def find_next(self, by: int) -> tuple[int, int]:
        """Go to another match; return its number, from 1, and the number of matches.

        Without marks, search again for the last text.
        """
        if not self._matches and self._searched:
            self.find(self._searched)
        elif self._matches:
            self._match = (self._match + by) % len(self._matches)
        if not self._matches:
            return 0, 0
        line, start, _ = self._matches[self._match]
        rows = [n for n, row in enumerate(self._shown) if row.line == line and row.start <= start]
        if rows and not 0 <= rows[-1] - self.scroll_offset.y < self.size.height:
            self._go(rows[-1], below_top=True)
        self.refresh()
        return self._match + 1, len(self._matches)

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen."""
        ground = self.visual_style.rich_style
        place = y + self.scroll_offset.y
        if place >= len(self._shown):
            return Strip.blank(self.size.width, ground)
        row = self._shown[place]
        number = row.line
        line = self._lines[number]
        style = ground
        if line.is_head:
            style = self.get_visual_style("lines--head").rich_style
        elif self._is_marked(line):
            style = self.get_visual_style("lines--marked").rich_style
        faint = self.get_visual_style("lines--number").rich_style
        label = line.label if row.start == 0 else ""
        level = self._levels[number] if number < len(self._levels) else 0.0
        bar = Segment(" ", ground)
        if level > 0:
            text_of_bar, colour = self.heat(step(level * OLD))
            bar = Segment(text_of_bar, ground + Style(color=colour.rich_color))
        segments = [
            Segment(f"{label:>{self._gutter - 3}} ", faint),
            bar,
            Segment(" ", style),
            *self._segments(row, style),
        ]
        return Strip(segments).extend_cell_length(self.size.width, style)

    def _segments(self, row: "_Row", style: Style) -> list[Segment]:
        """Return the text of a row with its matches."""
        segments, done = [], 0
        for order, (line, start, end) in enumerate(self._matches):
            if line != row.line or end <= row.start or start >= row.start + len(row.text):
                continue
            begin, stop = max(start - row.start, done), min(end - row.start, len(row.text))
            name = "lines--here" if order == self._match else "lines--match"
            segments += [
                Segment(row.text[done:begin], style),
                Segment(row.text[begin:stop], style + self.get_visual_style(name).rich_style),
            ]
            done = stop
        return [*segments, Segment(row.text[done:], style)]

    def heat(self, level: int) -> tuple[str, Color]:
        """Return the sign and colour of a step of brightness."""
        if self.app.current_theme.ansi or self._is_plain:
            return sign(level, is_plain=self._is_plain)
        if not self._ramp:
            theme = self.app.theme_variables
            ground, hot = self.background_colors[1], Color.parse(theme["accent"])
            ink = Color.parse(theme["foreground"])
            self._ramp = ramp(ground.blend(ink, 0.2), hot, self.app.current_theme.dark)
        return "▌", self._ramp[level]


class Viewer(ModalScreen[None]):
    """A document over the screen, opened at a passage."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Back"),
        Binding("slash", "find", "Find"),
        Binding("n", "find_next(1)", "Next match", show=False),
        Binding("N", "find_next(-1)", "Previous match", show=False),
        Binding("e", "edit", "Editor"),
        Binding("c", "copy", "Copy"),
        Binding("question_mark", "app.help", "Help", show=False),
    ]

    def __init__(
        self,
        layout: "DocumentTokens",
        places: Sequence[Place],
        number: int,
        brightness: Callable[[int, int], float],
        readers: Callable[[int, int], str],
        edit: Callable[[int], None],
        *,
        is_plain: bool = False,
    ) -> None:
        """Set up.

        Args:
            layout: the documents.
            places: passages, chapters or documents to go through.
            number: number of the first one to show.
            brightness: returns the brightness of tokens ``[start, end)`` on the map, 0 to 1.
            readers: returns in words which answers attended to tokens ``[start, end)``.
            edit: opens the line of a token in the user's editor.
            is_plain: draw in ASCII.
        """
        super().__init__()
        self._layout = layout
        self._places = places
        self._number = number
        self._brightness = brightness
        self._readers = readers
        self._edit = edit
        self._is_plain = is_plain

    def compose(self) -> ComposeResult:
        """Lay out the place of the passage, the document and the readers of the passage."""
        with Vertical(id="viewer"):
            yield Static("", markup=False, id="viewer-place")
            yield Vertical(id="viewer-body")
            with Horizontal(id="viewer-foot"):
                yield Static("", markup=False, id="viewer-readers")
                yield Static("", markup=False, id="viewer-legend")
        yield KeyLine()

    async def on_mount(self) -> None:
        """Show the first passage."""
        await self._show()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Offer to go on only if there are several passages."""
        return action != "go" or len(self._places) > 1

    async def action_go(self, by: int) -> None:
        """Show another passage."""
        number = self._number + by
        if 0 <= number < len(self._places):
            self._number = number
            await self._show()

    def action_find(self) -> None:
        """Search the document."""
        self.query_one(Finder).open(hands_over=True)

    def action_find_next(self, by: int) -> None:
        """Go to another match."""
        self.query_one(Finder).action_step(by)

    def action_edit(self) -> None:
        """Open the passage in the user's editor, or what is in sight if that is elsewhere."""
        line = self.query_one(DocumentLines).place
        if line is not None:
            self._edit(line.start)

    def action_copy(self) -> None:
        """Copy the lines of the passage, chapter or document."""
        copy = getattr(self.app, "copy_text", None)
        if copy is not None:
            copy(self.query_one(DocumentLines).opened_text)

    async def _show(self) -> None:
        place = self._places[self._number]
        span = next(
            (span for span in self._layout.documents if span.start <= place.start < span.end),
            self._layout.documents[-1],
        )
        lines = lines_of(span)
        levels = [
            self._brightness(line.start, line.end) if line.text.strip() else 0.0 for line in lines
        ]
        body = self.query_one("#viewer-body")
        await body.remove_children()
        shown = DocumentLines(lines, place, levels, is_plain=self._is_plain)
        await body.mount(shown, Finder(shown, "the document"))
        shown.focus()
        count = f"  {self._number + 1} of {len(self._places)}" if len(self._places) > 1 else ""
        left_out = displayable(", ".join(span.document.left_out))
        head = Content.assemble(
            (displayable(place.name).replace("\n", "␤"), "bold"),
            (f"{count}  left out: {left_out}" if left_out else count, QUIET),
        )
        self.query_one("#viewer-place", Static).update(head)
        readers = Content(self._readers(place.start, place.end))
        self.query_one("#viewer-readers", Static).update(readers)
        scale = legend("lines", 0, shown.heat) if any(levels) else Content("")
        self.query_one("#viewer-legend", Static).update(scale)
