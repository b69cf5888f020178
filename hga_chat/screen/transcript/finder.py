"""The search line of the transcript."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Static

from hga_chat.screen.transcript.widget import Transcript


class Finder(Horizontal):
    """Searches while the user types; Enter, Up and Down go from match to match."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,up", "step(-1)", "Previous match"),
        Binding("down", "step(1)", "Next match"),
        Binding("escape", "close", "Close"),
    ]

    def __init__(self, transcript: Transcript) -> None:
        super().__init__(id="finder")
        self._transcript = transcript
        self._input = Input(placeholder="Find in the conversation", id="finder-text", compact=True)
        self._count = Static("", markup=False, id="finder-count")
        self.display = False

    def compose(self) -> ComposeResult:
        """Lay out the input and the number of matches."""
        yield self._input
        yield self._count

    def open(self, text: str = "") -> None:
        """Open, with the given text or that of the last search."""
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
        """Go to the previous match, as the newest is shown first."""
        event.stop()
        self.action_step(-1)

    def action_step(self, by: int) -> None:
        """Go to another match."""
        at, count = self._transcript.find_next(by)
        self._show(at, count)

    def action_close(self) -> None:
        """Remove the marks; the transcript stays where it is."""
        self.display = False
        self._transcript.find("")
        self._transcript.focus()

    def _find(self, text: str) -> None:
        count = self._transcript.find(text)
        self._show(count, count)

    def _show(self, at: int, count: int) -> None:
        found = f"{at} of {count}" if count else "not found" if self._input.value else ""
        self._count.update(found)
