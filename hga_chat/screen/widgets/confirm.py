"""A question with two answers."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from hga_chat.display import displayable
from hga_chat.screen.widgets.key_line import KeyLine


class Confirm(ModalScreen[bool]):
    """Asks yes or no; the screen returns the answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Yes", key_display="y"),
        Binding("n,escape,q", "answer(False)", "No", key_display="n"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Lay out the question with a key line."""
        with Vertical(id="confirm"):
            yield Static(displayable(self._text), markup=False)
        yield KeyLine()

    def action_answer(self, answer: bool) -> None:
        """Return the answer."""
        self.dismiss(answer)
