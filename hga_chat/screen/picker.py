"""The list of saved sessions that ``chat`` shows first."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from hga_chat.display import displayable, local_time
from hga_chat.output import human_bytes
from hga_chat.screen.drawing.bars import QUIET
from hga_chat.screen.drawing.figures import count
from hga_chat.screen.drawing.themes import THEMES, PlainSigns, theme_for
from hga_chat.screen.keys import key_name
from hga_chat.screen.widgets.key_line import KeyLine

if TYPE_CHECKING:
    from hga_chat.sessions.store import SessionStore
    from hga_chat.sessions.types import SavedTurns, SessionInfo

TITLE = "Saved sessions"
SEARCH = "Search titles, documents, questions and answers"
NEW = ""
"""Stands for a chat without documents."""


@dataclass(frozen=True)
class Entry:
    """A saved session in the list."""

    id: str
    title: str
    updated: str
    questions: tuple[str, ...]
    texts: Callable[[], Iterator[str]]
    """Returns what else can be searched; takes a while."""

    def matches(self, words: Sequence[str]) -> bool:
        """Return whether every word is in the title, the documents' names or the turns."""
        return all(word in self._text for word in words)

    @cached_property
    def _text(self) -> str:
        return " ".join((self.id, self.title, *self.texts())).lower()


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
        texts = partial(_texts, store, info, turns)
        entries.append(Entry(id_, info.title, turns.updated, questions, texts))
    return entries


def _texts(store: "SessionStore", info: "SessionInfo", turns: "SavedTurns") -> Iterator[str]:
    """Yield the names of a session's documents and the words of its turns."""
    from hga_chat.sessions.types import SessionError

    yield from info.given
    for turn in turns.turns:
        yield from (turn.question, turn.text)
    with suppress(SessionError):
        yield from (document.path for document in store.documents(info.id).loaded.documents)


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
        Binding("enter", "enter", "Open", priority=True),
        Binding("f2", "rename", "Rename", priority=True),
        Binding("f4", "fork", "Fork", priority=True),
        Binding("f8", "delete", "Delete", priority=True),
        Binding("ctrl+n", "new", "New chat", priority=True),
        Binding("escape", "give_up", "Back", priority=True, show=False),
        Binding("ctrl+q,ctrl+c", "leave", "Quit", priority=True),
    ]

    def __init__(self, store: "SessionStore", theme: str = "auto", *, plain: bool = False) -> None:
        """Set up.

        Args:
            store: the sessions.
            theme: a name, or ``auto``.
            plain: draw in ASCII.
        """
        import os

        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self._first_theme = theme_for(theme, os.environ)
        if plain:
            self._filters.append(PlainSigns())
        self._store = store
        self._entries = entries_of(store)
        self._renamed: Entry | None = None
        self._doomed: Entry | None = None
        """The session that the next F8 deletes."""
        self._list = OptionList(id="sessions")
        self._list.can_focus = False

    def get_key_display(self, binding: Binding) -> str:
        """Return the name of a key for the footer."""
        return key_name(binding)

    def compose(self) -> ComposeResult:
        """Lay out the search line above the sessions."""
        with Vertical():
            yield Static(TITLE, markup=False, id="sessions-title")
            yield Input(placeholder=SEARCH, id="search")
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
        if self._renamed is None:
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

    def on_option_list_option_highlighted(self) -> None:
        """Delete nothing but what was asked about: another session ends the question."""
        if self._doomed is not None and self._chosen is not self._doomed:
            self._doomed = None
            self._say(TITLE)

    @property
    def _chosen(self) -> Entry | None:
        """The highlighted session."""
        if not self._list.option_count or self._list.highlighted is None:
            return None
        id_ = self._list.get_option_at_index(self._list.highlighted).id
        return next(entry for entry in self._entries if entry.id == id_)

    def action_enter(self) -> None:
        """Open the highlighted session, or take the new title."""
        if self._renamed is not None:
            entry, title = self._renamed, " ".join(self.query_one(Input).value.split())
            self.action_give_up()
            if title:
                self._change(lambda: self._store.rename(entry.id, title))
        elif self._chosen is not None:
            self.exit(self._chosen.id)

    def action_rename(self) -> None:
        """Ask for a new title of the highlighted session."""
        entry = self._chosen
        if entry is not None and self._renamed is None:
            self._renamed = entry
            self._say(f"New title of {displayable(entry.title)}: Enter saves, Esc cancels")
            self.query_one(Input).value = entry.title

    def action_fork(self) -> None:
        """Copy the highlighted session, to ask other questions."""
        entry = self._chosen
        if entry is not None and self._renamed is None:
            self._change(lambda: self._fork(entry.id))

    def _fork(self, id_: str) -> None:
        old = self._store.open(id_)
        try:
            self._store.fork(old, None).close()
        finally:
            old.close()

    def action_delete(self) -> None:
        """Delete the highlighted session when asked twice."""
        entry = self._chosen
        if entry is None or self._renamed is not None:
            return
        if self._doomed is not entry:
            self._doomed = entry
            size = human_bytes(self._store.disk_bytes(entry.id))
            self._say(f"Delete {displayable(entry.title)} ({size})? F8 deletes it, Esc keeps it")
            return
        self._doomed = None
        self._say(TITLE)
        self._change(lambda: self._store.remove(entry.id))

    def _change(self, act: Callable[[], object]) -> None:
        """Change something that is saved, and show the sessions as they are then."""
        from hga_chat.errors import describe
        from hga_engine.errors import EngineError

        try:
            act()
        except (OSError, EngineError) as error:
            self.notify(describe(error), severity="warning")
        self._entries = entries_of(self._store)
        self._show(self.query_one(Input).value)

    def action_give_up(self) -> None:
        """Leave what was begun; with nothing begun, quit."""
        if self._renamed is None and self._doomed is None:
            self.action_leave()
        elif self._renamed is not None:
            self.query_one(Input).value = ""
        self._renamed = self._doomed = None
        self._say(TITLE)
        self._show(self.query_one(Input).value)

    def _say(self, text: str) -> None:
        self.query_one("#sessions-title", Static).update(text)

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
            f"  {count(len(entry.questions), 'turn')}, {local_time(entry.updated)}  {entry.id}\n",
            QUIET,
        ),
        (f"  {last[:100]}\n", QUIET),
    )
