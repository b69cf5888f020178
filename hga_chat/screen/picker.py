"""The list of saved sessions that ``chat`` shows first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from hga_chat.display import displayable
from hga_chat.screen.drawing.bars import QUIET
from hga_chat.screen.drawing.figures import count
from hga_chat.screen.drawing.themes import THEMES, PlainSigns, theme_for
from hga_chat.screen.keys import key_name
from hga_chat.screen.widgets.key_line import KeyLine

if TYPE_CHECKING:
    from hga_chat.sessions.store import SessionStore

NEW = ""
"""Stands for a chat without documents."""


@dataclass(frozen=True)
class Entry:
    """A saved session in the list."""

    id: str
    title: str
    updated: str
    questions: tuple[str, ...]
    paths: tuple[str, ...] = ()

    def matches(self, words: Sequence[str]) -> bool:
        """Return whether every word is in the title, the paths or the questions."""
        text = " ".join((self.id, self.title, *self.paths, *self.questions)).lower()
        return all(word in text for word in words)


def entries_of(store: "SessionStore") -> list[Entry]:
    """Return the sessions that can be opened, most recently used first."""
    from hga_chat.sessions.types import SessionError

    entries = []
    for id_ in store.ids():
        try:
            info, turns = store.info(id_), store.turns(id_)
        except SessionError:
            continue
        questions = tuple(turn.question for turn in turns.turns)
        entries.append(Entry(id_, info.title, turns.updated, questions, info.given))
    return entries


class SessionPicker(App[str | None]):
    """Saved sessions with a search; the app returns the id of the chosen one, or ``NEW``."""

    TITLE = "hga-chat"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: $background; }
    #sessions-title { height: 1; background: $panel; padding: 0 1; text-style: bold;
                      color: $text-primary; }
    #search { border: round $primary; height: 3; background: $background; }
    #sessions { height: 1fr; border: none; background: $background; padding: 0 1;
                scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", priority=True),
        Binding("ctrl+n", "new", "New, without documents", priority=True),
        Binding("escape,ctrl+q,ctrl+c", "leave", "Quit", priority=True),
    ]

    def __init__(
        self, entries: Sequence[Entry], theme: str = "auto", *, plain: bool = False
    ) -> None:
        """Set up.

        Args:
            entries: the sessions, most recently used first.
            theme: a name, or ``auto``.
            plain: draw in ASCII.
        """
        import os

        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self._first_theme = theme_for(theme, os.environ)
        if plain:
            self._filters.append(PlainSigns())
        self._entries = entries
        self._list = OptionList(id="sessions")
        self._list.can_focus = False

    def get_key_display(self, binding: Binding) -> str:
        """Return the name of a key for the footer."""
        return key_name(binding)

    def compose(self) -> ComposeResult:
        """Lay out the search line above the sessions."""
        with Vertical():
            yield Static("Saved sessions", markup=False, id="sessions-title")
            yield Input(placeholder="Search titles, paths and questions", id="search")
            yield self._list
        yield KeyLine()

    def on_mount(self) -> None:
        """Show all sessions."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self._first_theme.name
        self.query_one(Input).focus()
        self._show("")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the sessions that match."""
        self._show(event.value)

    def on_key(self, event: events.Key) -> None:
        """Move through the list with up and down while typing."""
        if event.key in ("up", "down"):
            event.prevent_default()
            moves = {"up": self._list.action_cursor_up, "down": self._list.action_cursor_down}
            moves[event.key]()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open the session that was clicked."""
        self.exit(event.option.id)

    def action_open(self) -> None:
        """Open the highlighted session."""
        if self._list.option_count and self._list.highlighted is not None:
            self.exit(self._list.get_option_at_index(self._list.highlighted).id)

    def action_new(self) -> None:
        """Start a chat without documents."""
        self.exit(NEW)

    def action_leave(self) -> None:
        """Quit without opening a session."""
        self.exit(None)

    def _show(self, search: str) -> None:
        words = search.lower().split()
        found = [entry for entry in self._entries if entry.matches(words)]
        self._list.clear_options()
        self._list.add_options(Option(_line(entry), entry.id) for entry in found)
        if found:
            self._list.highlighted = 0


def _line(entry: Entry) -> Content:
    """Return title, number of turns, date and last question."""
    last = (
        " ".join(displayable(entry.questions[-1]).split()) if entry.questions else "not asked yet"
    )
    return Content.assemble(
        (displayable(entry.title), "bold"),
        (
            f"  {count(len(entry.questions), 'turn')}, {entry.updated[:16].replace('T', ' ')}"
            f"  {entry.id}\n",
            QUIET,
        ),
        (f"  {last[:100]}\n", QUIET),
    )
