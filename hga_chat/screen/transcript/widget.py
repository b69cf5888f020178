"""The transcript: one widget that draws what is in sight, however long the conversation."""

from collections import OrderedDict
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style

from hga_chat.display import displayable
from hga_chat.screen.transcript.entries import Entries
from hga_chat.screen.transcript.frames import BARS, MARGIN, Frames
from hga_chat.screen.transcript.highlight import Colouring
from hga_chat.screen.transcript.math_rules import formulas
from hga_chat.screen.transcript.pieces import Frame, Kind, Piece, source_offsets
from hga_chat.screen.transcript.rows import Mark, text_rows
from hga_chat.screen.transcript.search import Match, find
from hga_chat.screen.transcript.stack import Stack
from hga_chat.screen.transcript.turn import Turn

WIDEST = 116
CACHED_PIECES = 100
"""Pieces whose drawn lines are cached."""
HERE, MATCH = "bold reverse $accent", "bold underline $accent"
"""Styles of the selected word or current match, and of other matches."""
SELECTABLE = ("question", "thought", "answer", "source", "error")


class Transcript(ScrollView, can_focus=True):
    """Pieces of turns, oldest first; follows its end unless scrolled up.

    Attributes:
        cursor: the piece that keys act on, or None.
        token: the token of the answer whose trace is shown, or None.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"transcript--{name}" for name in (*BARS, "cursor")}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("j,ctrl+down", "move(1)", "Move", key_display="j k"),
        Binding("k,ctrl+up", "move(-1)", "Move", show=False),
        Binding("right,l", "token(1)", "Word by word", key_display="← →"),
        Binding("left,h", "token(-1)", "Previous word", show=False),
        Binding("c", "app.copy('block')", "Copy"),
        Binding("y", "app.copy('answer')", "Copy the answer", show=False),
        Binding("e", "open(True)", "Open the source in the editor", show=False),
        Binding("r", "app.retry", "Ask the last question again", show=False),
        Binding("g", "scroll_home", "First line", show=False),
        Binding("G", "scroll_end", "Last line", show=False),
    ]

    class SourceOpened(Message):
        """The user opened a source of an answer, here or in an editor."""

        def __init__(self, turn: Turn, number: int, *, in_editor: bool) -> None:
            super().__init__()
            self.turn = turn
            self.number = number
            self.in_editor = in_editor

    class Pointed(Message):
        """The user selected an answer and perhaps one of its tokens; None: no longer."""

        def __init__(self, turn: Turn | None, token: int | None) -> None:
            super().__init__()
            self.turn = turn
            self.token = token

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self.cursor: Piece | None = None
        self.token: int | None = None
        self.colouring = Colouring()
        card = Piece("card", ())
        self._entries = Entries(card)
        self._stack = Stack(WIDEST)  # the first frame is drawn before the size is known
        self._stack.replace(0, [card])
        self._drawn: OrderedDict[Piece, None] = OrderedDict()
        self._on_screen: dict[int, Strip] = {}
        self._frames = Frames(self)
        self._searched = ""
        self._matches: list[Match] = []
        self._match = -1
        self._follows = True
        self._pointed: tuple[Turn | None, int | None] = (None, None)
        self._pressed: Piece | None = None
        self._noted = ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Offer to move once there is a question, and to open on a source or thought."""
        if action == "open":
            return self.cursor is not None and self.cursor.kind in ("source", "thought")
        return action not in ("move", "token") or bool(self.turns)

    # Entries

    @property
    def turns(self) -> list[Turn]:
        """All turns, oldest first."""
        return self._entries.turns

    @property
    def card(self) -> str:
        """The text of the card at the top."""
        return self._stack.pieces[0].source

    @property
    def notices(self) -> list[str]:
        """The lines that ``note`` appended."""
        return self._entries.notices

    @property
    def chosen_turn(self) -> Turn | None:
        """The turn that the cursor is in."""
        return self._turn_of(self.cursor) if self.cursor else None

    def _turn_of(self, piece: Piece) -> Turn | None:
        return self._entries.turn_at(self._stack.pieces.index(piece))

    def show_card(self, content: Content, *, is_error: bool = False) -> None:
        """Show at the top what is going on."""
        kind: Kind = "error" if is_error else "card"
        self._entries.replace_card(Piece(kind, text_rows(content), content.plain))
        self._gather(0)

    def add(self, question: str) -> Turn:
        """Append a turn and scroll to it."""
        turn = Turn(len(self.turns) + 1, question, self.colouring)
        self._entries.add(turn)
        self._follows = True
        self._gather(self._entries.last)
        return turn

    def bring_back(self, turn: Turn) -> None:
        """Append a turn that was taken out, and scroll to it."""
        self._entries.add(turn)
        self._follows = True
        self._gather(self._entries.last)

    def take_out(self, turn: Turn) -> None:
        """Remove a turn."""
        self._entries.remove(turn)
        self._gather(0)

    def clear(self) -> None:
        """Remove all turns and notices."""
        self._entries.clear()
        self._noted = ""
        self._follows = True
        self._gather(0)

    def note(self, text: str) -> None:
        """Append a notice, unless it repeats the one before."""
        if text != self._noted:
            self._noted = text
            self._entries.add(Piece("notice", text_rows(Content(displayable(text))), text, True))
            self._gather(self._entries.last)

    def changed(self, turn: Turn) -> None:
        """Draw a turn that has changed; its unchanged pieces stay as they were drawn."""
        self._gather(self._entries.index(turn))

    def _gather(self, entry: int) -> None:
        """Lay out the pieces of the entries from ``entry`` on again."""
        start, fresh = self._entries.pieces_from(entry, len(self._stack.pieces))
        for piece in {*self._stack.pieces[start:]}.difference(fresh):
            self._drawn.pop(piece, None)
        changed = self._stack.replace(start, fresh)
        if self.cursor is not None and self.cursor not in self._stack.pieces:
            self.cursor, self.token = None, None
        if self.size.width:
            self._settle(changed=changed)

    # Layout

    def on_resize(self) -> None:
        """Lay out at the new width; the piece at the top of the screen stays there."""
        room = self.scrollable_content_region.width
        width = max(min(room - 2 * MARGIN, WIDEST), 1)
        index = self._stack.index_at(self.scroll_offset.y)
        row, _ = self._stack.pieces[index].row_at(self.scroll_offset.y - self._stack.top(index))
        if width != self._stack.width:
            height = self.size.height
            last = len(self._stack.pieces)
            shown = range(last - height, last) if self._follows else range(index, index + height)
            self._stack.resize(width, range(max(shown.start, 0), shown.stop))
        place = self._stack.top(index) + self._stack.pieces[index].line_of(max(row, 0))
        self._settle(None if self._follows else place)

    def _settle(self, y: int | None = None, changed: int = 0) -> None:
        """Follow the end or scroll to ``y``; draw what changed from a piece on."""
        before = self.scroll_offset.y
        if self._follows:
            self._stack.measure_end(self.size.height)
        # The scrollbar is always shown, so a new length needs no new layout of the screen.
        size = Size(self.size.width, self._stack.height + 1)
        if size != self.virtual_size:
            self.set_reactive(Transcript.virtual_size, size)
            self._scroll_update(size)
        if self._follows:
            self._go(self.max_scroll_y)
        elif y is not None:
            self._go(y)
        if self.scroll_offset.y == before:
            self._refresh_changed(self._stack.top(changed) - before)
        else:
            self.refresh()

    def _refresh_changed(self, first: int) -> None:
        """Draw the lines from ``first`` on that differ from the screen."""
        width, height = self.size
        lines = range(max(first, 0), height)
        changed = [y for y in lines if self.render_line(y) != self._on_screen.get(y)]
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def _go(self, y: float) -> None:
        self.scroll_to(y=y, animate=False, immediate=True, force=True)

    def refine(self) -> None:
        """Correct some estimated heights and show highlighted code; called at each tick."""
        if self.colouring.show():
            self.refresh()
        if not self.size.width:
            return
        index = self._stack.index_at(self.scroll_offset.y)
        below = self.scroll_offset.y - self._stack.top(index)
        before = self._stack.height
        self._stack.refine()
        if self._stack.height != before:
            self._settle(self._stack.top(index) + below)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow the end if the user has scrolled there."""
        super().watch_scroll_y(old_value, new_value)
        if self.size.width:
            self._follows = new_value >= self.max_scroll_y
            top = int(new_value)
            self._stack.measure(self._stack.between(top, top + self.size.height))

    # Drawing

    def notify_style_update(self) -> None:
        """Drop the frames of another theme."""
        super().notify_style_update()
        self._frames.clear()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return lines of the screen, filtered; pieces cache what was drawn before.

        Textual's own cache goes by the position on the screen, which streaming changes constantly.
        """
        above = self.gutter.top
        _, background = self.background_colors
        strips = [self.render_line(y - above) for y in crop.line_range]
        self._on_screen.update(zip((y - above for y in crop.line_range), strips, strict=True))
        for line_filter in self.get_line_filters():
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.column_span != (0, self.outer_size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen; lines before the first are empty."""
        place = y + self.scroll_offset.y
        if y >= 0 and place < self._stack.height and self._stack.pieces:
            index = self._stack.index_at(place)
            piece = self._stack.pieces[index]
            row, line = piece.row_at(place - self._stack.top(index))
            if row >= 0 and piece.count:
                number = self._stack.first_row(index) + row
                marks = self._marks(piece, row, number)
                self._cache(piece)
                return piece.strip(row, line, self._frame(piece), number, marks)
        return Strip.blank(self.outer_size.width, self.visual_style.rich_style)

    def _frame(self, piece: Piece) -> Frame:
        """Return the frame of a piece; its bar is brighter at the cursor."""
        return self._frames.of(
            piece.kind, piece is self.cursor and self.has_focus, self._stack.width
        )

    def _marks(self, piece: Piece, row: int, number: int) -> list[Mark]:
        marks: list[Mark] = []
        for order, match in enumerate(self._matches):
            if match.piece is piece and match.row == row:
                style = HERE if order == self._match else MATCH
                marks.append((match.start, match.end, style))
        if self.token is not None and piece is self.cursor:
            marks += self._token_marks(piece, row)
        selection = self.text_selection
        span = selection.get_span(number) if selection else None
        if span is not None:
            chosen = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            marks.append((*span, chosen))
        return marks

    def _token_marks(self, piece: Piece, row: int) -> list[Mark]:
        """Return a mark for the characters of a row that the selected token wrote."""
        turn = self.chosen_turn
        assert turn is not None
        assert self.token is not None
        begin, end = turn.trace.span(self.token)
        plain = piece.rows[row].plain
        found = [
            n
            for n, at in enumerate(source_offsets(piece)[row])
            if begin <= piece.begin + at < end and not plain[n].isspace()
        ]
        return [(found[0], found[-1] + 1, HERE)] if found else []

    def _cache(self, piece: Piece) -> None:
        self._drawn[piece] = None
        self._drawn.move_to_end(piece)
        if len(self._drawn) > CACHED_PIECES:
            self._drawn.popitem(last=False)[0].fold()

    # The cursor

    def action_move(self, by: int) -> None:
        """Select another piece."""
        found = [piece for piece in self._stack.pieces if piece.kind in SELECTABLE]
        if not found:
            return
        if self.cursor in found:
            at = min(max(found.index(self.cursor) + by, 0), len(found) - 1)
        else:
            shown = self._shown_pieces()
            at = next((n for n, piece in enumerate(found) if piece in shown), len(found) - 1)
        self.choose(found[at])

    def _shown_pieces(self) -> list[Piece]:
        top = self.scroll_offset.y
        found = self._stack.between(top, top + self.size.height - 1)
        return self._stack.pieces[found.start : found.stop]

    def choose(self, piece: Piece | None) -> None:
        """Move the cursor to a piece and scroll to it."""
        if piece is not self.cursor:
            self.token = None
        self.cursor = piece
        if piece is not None:
            index = self._stack.pieces.index(piece)
            self._show_lines(self._stack.top(index), self._stack.top(index + 1))
        self._point(self.chosen_turn, self.token)
        self.refresh_bindings()
        self.refresh()

    def _show_lines(self, top: int, bottom: int) -> None:
        """Scroll as little as possible to show these lines."""
        if top < self.scroll_offset.y or bottom - top >= self.size.height:
            self._go(top)
        elif bottom > self.scroll_offset.y + self.size.height:
            self._go(bottom - self.size.height)

    def action_token(self, by: int) -> None:
        """Select another token of an answer, to show its trace."""
        piece = self.cursor
        if piece is None or piece.kind != "answer":
            answers = [p for p in self._shown_pieces() if p.kind == "answer"]
            if not answers:
                return
            piece = answers[0]
            self.choose(piece)
        turn = self._turn_of(piece)
        assert turn is not None
        at = turn.trace.token_at(piece.begin) if self.token is None else self.token + by
        if at is None or not 0 <= at < turn.trace.tokens:
            return
        blocks = [p for p in turn.pieces if p.kind == "answer"]
        begin, _ = turn.trace.span(at)
        self.cursor = next((p for p in reversed(blocks) if p.begin <= begin), piece)
        self.token = at
        index = self._stack.pieces.index(self.cursor)
        self._show_lines(self._stack.top(index), self._stack.top(index + 1))
        self._point(turn, at)
        self.refresh()

    def action_open(self, in_editor: bool = False) -> None:
        """Open the source at the cursor; unfold the thought there, or fold it."""
        piece = self.cursor
        turn = self.chosen_turn
        if piece is None or turn is None:
            return
        if piece.kind == "source":
            self.post_message(self.SourceOpened(turn, piece.number, in_editor=in_editor))
        elif piece.kind == "thought":
            unfolded = turn.unfold_thought()
            self.changed(turn)
            self.choose(unfolded)

    def leave_token(self) -> bool:
        """Deselect the token or piece; return whether there was one."""
        if self.token is None and self.cursor is None:
            return False
        if self.token is not None:
            self.token = None
            self._point(self.chosen_turn, None)
        else:
            self.choose(None)
        self.refresh()
        return True

    def _point(self, turn: Turn | None, token: int | None) -> None:
        if (turn, token) != self._pointed:
            self._pointed = (turn, token)
            self.post_message(self.Pointed(turn, token))

    # The mouse

    def _piece_under(self, event: events.MouseEvent) -> Piece | None:
        offset = event.get_content_offset(self)
        if offset is None or not self._stack.pieces:
            return None
        y = offset.y + self.scroll_offset.y
        return self._stack.pieces[self._stack.index_at(y)] if y < self._stack.height else None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Remember the piece under the mouse."""
        self._pressed = self._piece_under(event)

    def on_click(self, event: events.Click) -> None:
        """Select a piece; open a source."""
        piece = self._piece_under(event)
        if piece is None or piece.kind not in SELECTABLE or event.chain > 1:
            return
        self.choose(piece)
        if piece.kind in ("source", "thought"):
            self.action_open()

    def text_select_all(self) -> None:
        """Select the text of the piece that was double-clicked."""
        piece = self._pressed
        if piece is None or piece not in self._stack.pieces or not piece.count:
            return
        first = self._stack.first_row(self._stack.pieces.index(piece))
        last = first + piece.count - 1
        ends = Offset(0, first), Offset(len(piece.rows[-1].plain), last)
        self.screen.selections = {self: Selection(*ends)}

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Show the trace of the word under the mouse."""
        piece = self._piece_under(event)
        under, place = self.screen.get_widget_and_offset_at(event.screen_x, event.screen_y)
        if under is not self or place is None or piece is None or piece.kind != "answer":
            self.on_leave()
            return
        row = place.y - self._stack.first_row(self._stack.pieces.index(piece))
        at = source_offsets(piece)[row] if 0 <= row < piece.count else []
        turn = self._turn_of(piece)
        if turn is not None and place.x < len(at):
            self._point(turn, turn.trace.token_at(piece.begin + at[place.x]))

    def on_leave(self) -> None:
        """Show the trace of what the cursor is on."""
        self._point(self.chosen_turn, self.token)

    # Selection and search

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the selected text, unwrapped."""
        rows = [row.plain for piece in self._stack.pieces for row in piece.rows]
        return (selection.extract("\n".join(rows)), "\n") if rows else None

    def selected_source(self) -> str | None:
        """Return the Markdown of the selection if it lies within one answer."""
        selection = self.text_selection
        if selection is None or selection.start is None or selection.end is None:
            return None
        ends: list[tuple[Turn | None, int]] = []
        for offset in (selection.start, selection.end):
            index = self._stack.index_of_row(offset.y)
            piece, row = self._stack.pieces[index], offset.y - self._stack.first_row(index)
            if piece.kind != "answer" or row >= piece.count:
                return None
            at = source_offsets(piece)[row]
            inside = at[min(max(offset.x, 0), len(at) - 1)] if at else 0
            inside += bool(at) and offset.x >= len(at)
            # A formula is copied whole.
            for start, end, _ in formulas(piece.source):
                if start < inside < end:
                    inside = end if ends else start
            ends.append((self._entries.turn_at(index), piece.begin + inside))
        (turn, first), (other, last) = ends
        return turn.text[first:last] or None if turn is other and turn is not None else None

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002
        """Draw the selection."""
        self.refresh()

    def find(self, text: str) -> int:
        """Mark all matches and go to the last; return their number. Empty removes the marks."""
        self._searched = text or self._searched
        self._matches = find(text, self._stack.pieces)
        self._match = len(self._matches)
        if self._matches:
            self.find_next(-1)
        self.refresh()
        return len(self._matches)

    def find_next(self, by: int) -> tuple[int, int]:
        """Go to another match; return its number, from 1, and the number of matches.

        Without marks, search again for the last text.
        """
        if not self._matches and self._searched:
            self._matches = find(self._searched, self._stack.pieces)
            self._match = -1 if by > 0 else len(self._matches)
        self._matches = [m for m in self._matches if m.piece in self._stack.pieces]
        if not self._matches:
            self._match = -1
            return 0, 0
        self._match = (self._match + by) % len(self._matches)
        match = self._matches[self._match]
        index = self._stack.pieces.index(match.piece)
        self._stack.measure(range(index, index + 1))
        line = self._stack.top(index) + match.piece.line_of(match.row)
        self._follows = False
        self._show_lines(max(line - 1, 0), line + 2)
        self.refresh()
        return self._match + 1, len(self._matches)
