"""A document opened at a passage, with the attention to each line beside it."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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
from hga_chat.screen.widgets.key_line import KeyLine

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens
    from hga_chat.documents.layout import DocumentSpan


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


class DocumentLines(ScrollView, can_focus=True):
    """Wrapped lines with their numbers; a bar shows the brightness of each, as on the map."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False),
        Binding("k", "scroll_up", "Up", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--marked", "lines--number", "lines--head"}

    def __init__(
        self,
        lines: Sequence[TextLine],
        marked: tuple[int, int],
        levels: Sequence[float],
        *,
        is_plain: bool = False,
    ) -> None:
        """Set up.

        Args:
            lines: lines of the document.
            marked: tokens of the passage, ``[start, end)``.
            levels: brightness of each line, 0 to 1.
            is_plain: draw in ASCII.
        """
        super().__init__(id="lines")
        self._lines = lines
        self._marked = marked
        self._levels = levels
        self._gutter = max((len(line.label) for line in lines), default=0) + 3
        self._is_plain = is_plain
        self._shown: list[tuple[int, bool, str]] = []
        self._ramp: list[Color] = []

    @property
    def marked_text(self) -> str:
        """Text of the marked lines."""
        return "\n".join(line.text for line in self._lines if self._is_marked(line))

    def _is_marked(self, line: TextLine) -> bool:
        start, end = self._marked
        return not line.is_head and line.start < end and line.end > start

    def on_resize(self) -> None:
        """Wrap the lines; scroll to the passage the first time."""
        width = self.scrollable_content_region.width
        if width <= 0:
            return
        is_first = not self._shown
        here = self._shown[min(self.scroll_offset.y, len(self._shown) - 1)][0] if self._shown else 0
        room = max(width - self._gutter - 1, 1)  # a cell stays free before the scrollbar
        self._shown = []
        for number, line in enumerate(self._lines):
            pieces = (
                [piece.plain for piece in Content(line.text).wrap(room)]
                if len(line.text) > room // 2 and Content(line.text).cell_length > room
                else [line.text]
            )
            for piece in pieces or [""]:
                self._shown.append((number, piece is (pieces or [""])[0], piece))
        self.virtual_size = Size(width, len(self._shown))
        if is_first:
            found = (n for n, line in enumerate(self._lines) if self._is_marked(line))
            here = max(next(found, 0), 0)
        place = next((n for n, row in enumerate(self._shown) if row[0] == here), 0)
        self.scroll_to(
            y=max(place - (3 if is_first else 0), 0), animate=False, immediate=True, force=True
        )
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen."""
        ground = self.visual_style.rich_style
        place = y + self.scroll_offset.y
        if place >= len(self._shown):
            return Strip.blank(self.size.width, ground)
        number, is_first, text = self._shown[place]
        line = self._lines[number]
        style = ground
        if line.is_head:
            style = self.get_visual_style("lines--head").rich_style
        elif self._is_marked(line):
            style = self.get_visual_style("lines--marked").rich_style
        faint = self.get_visual_style("lines--number").rich_style
        label = line.label if is_first else ""
        level = self._levels[number] if number < len(self._levels) else 0.0
        bar = Segment(" ", ground)
        if level > 0:
            text_of_bar, colour = self.heat(step(level * OLD))
            bar = Segment(text_of_bar, ground + Style(color=colour.rich_color))
        segments = [
            Segment(f"{label:>{self._gutter - 3}} ", faint),
            bar,
            Segment(" ", style),
            Segment(text, style),
        ]
        return Strip(segments).extend_cell_length(self.size.width, style)

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
        Binding("right,n", "go(1)", "Next source"),
        Binding("left,p", "go(-1)", "Previous source"),
        Binding("c", "copy", "Copy"),
    ]

    def __init__(
        self,
        layout: "DocumentTokens",
        places: "Sequence[tuple[int, int, str]]",
        number: int,
        brightness: Callable[[int, int], float],
        readers: Callable[[int, int], str],
        *,
        is_plain: bool = False,
    ) -> None:
        """Set up.

        Args:
            layout: the documents.
            places: passages to go through: first token, one past the last, name.
            number: number of the first passage to show.
            brightness: returns the brightness of tokens ``[start, end)`` on the map, 0 to 1.
            readers: returns in words which answers attended to tokens ``[start, end)``.
            is_plain: draw in ASCII.
        """
        super().__init__()
        self._layout = layout
        self._places = places
        self._number = number
        self._brightness = brightness
        self._readers = readers
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

    def action_copy(self) -> None:
        """Copy the lines of the passage."""
        copy = getattr(self.app, "copy_text", None)
        if copy is not None:
            copy(self.query_one(DocumentLines).marked_text)

    async def _show(self) -> None:
        start, end, place = self._places[self._number]
        span = next(
            (span for span in self._layout.documents if span.start <= start < span.end),
            self._layout.documents[-1],
        )
        lines = lines_of(span)
        levels = [
            self._brightness(line.start, line.end) if line.text.strip() else 0.0 for line in lines
        ]
        body = self.query_one("#viewer-body")
        await body.remove_children()
        shown = DocumentLines(lines, (start, end), levels, is_plain=self._is_plain)
        await body.mount(shown)
        shown.focus()
        count = f"  {self._number + 1} of {len(self._places)}" if len(self._places) > 1 else ""
        left_out = displayable(", ".join(span.document.left_out))
        head = Content.assemble(
            (displayable(place).replace("\n", "␤"), "bold"),
            (f"{count}  left out: {left_out}" if left_out else count, QUIET),
        )
        self.query_one("#viewer-place", Static).update(head)
        self.query_one("#viewer-readers", Static).update(Content(self._readers(start, end)))
        scale = legend("lines", 0, shown.heat) if any(levels) else Content("")
        self.query_one("#viewer-legend", Static).update(scale)
