"""The search line of the transcript and of the viewer."""

from typing import ClassVar, Protocol

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Static


class Searched(Protocol):
    """A widget whose text can be searched."""

    def find(self, text: str) -> int:
        """Mark all matches and go to the first to show; return their number."""

    def find_next(self, by: int) -> tuple[int, int]:
        """Go to another match; return its number, from 1, and the number of matches."""

    def focus(self) -> Widget:
        """Take the keys."""


class Finder(Horizontal):
    """Searches while the user types; Up and Down go from match to match, Enter as ``open`` says."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,up", "step(-1)", "Previous match"),
        Binding("down", "step(1)", "Next match"),
        Binding("escape", "close", "Close"),
    ]

    def __init__(self, searched: Searched, what: str) -> None:
        super().__init__(id="finder")
        self._searched = searched
        self._input = Input(placeholder=f"Find in {what}", id="finder-text", compact=True)
        self._count = Static("", markup=False, id="finder-count")
        self._hands_over = False
        self._opener: Widget | None = None
        """What had the keys when the search was begun."""
        self.display = False

    def compose(self) -> ComposeResult:
        """Lay out the input and the number of matches."""
        yield self._input
        yield self._count

    def open(self, text: str = "", *, hands_over: bool = False) -> None:
        """Open, with the given text or that of the last search.

        Args:
            text: what to search for.
            hands_over: Enter goes back to the text, where n and N go on, as in less and vim;
                otherwise it goes to the previous match, as in a browser.
        """
        self._hands_over = hands_over
        focused = self.screen.focused
        if focused is not self._input:
            self._opener = focused
        self.display = True
        self._input.value = text or self._input.value
        self._input.focus()
        self._find(self._input.value)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search for the text so far."""
        event.stop()
        if self.display:
            self._find(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the text, or to the previous match, as the newest is shown first."""
        event.stop()
        if self._hands_over:
            self._searched.focus()
        else:
            self.action_step(-1)

    def action_step(self, by: int) -> None:
        """Go to another match."""
        self._show(*self._searched.find_next(by))

    def action_close(self) -> None:
        """Remove the marks, and give the keys back to what had them; the text stays where it is."""
        self.display = False
        self._searched.find("")
        (self._opener or self._searched).focus()

    def _find(self, text: str) -> None:
        count = self._searched.find(text)
        self._show(*self._searched.find_next(0) if count else (0, 0))

    def _show(self, at: int, count: int) -> None:
        found = f"{at} of {count}" if count else "not found" if self._input.value else ""
        self._count.update(found)
