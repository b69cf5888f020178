"""The prompt."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import OptionList, TextArea

from hga_chat.screen.commands import parse
from hga_chat.screen.widgets.completions import Completions, completions


class Prompt(TextArea):
    """Several lines of input: Enter sends, Ctrl+J or Shift+Enter breaks the line.

    Up in the first line and Down in the last go through earlier questions. Commands after a slash
    and files after an at sign are offered; Tab takes the highlighted one.

    Attributes:
        offered: the list of completions, laid out by the application.
        paths: paths of the documents.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send"),
        Binding("ctrl+j,shift+enter", "new_line", "New line", show=False),
        Binding("ctrl+g", "app.edit_prompt", "Write in the editor", show=False),
        Binding("pageup", "app.page_transcript(-1)", "Scroll", show=False),
        Binding("pagedown", "app.page_transcript(1)", "Scroll", show=False),
    ]

    class Sent(Message):
        """The user sent a question or command."""

        def __init__(self, question: str) -> None:
            super().__init__()
            self.question = question

    def __init__(self) -> None:
        super().__init__(
            soft_wrap=True,
            show_line_numbers=False,
            tab_behavior="focus",
            highlight_cursor_line=False,
            id="prompt",
        )
        self.offered = Completions()
        self.paths: Sequence[str] = ()
        self._history: list[str] = []
        self._place = 0
        self._draft = ""

    def remember(self, question: str) -> None:
        """Add a question to the history and go to its end."""
        if not self._history or self._history[-1] != question:
            self._history.append(question)
        self._place = len(self._history)
        self._draft = ""

    def fill(self, text: str) -> None:
        """Put a text into the prompt for editing."""
        self.text = text
        self.move_cursor(self.document.end)
        self.focus()

    async def _on_key(self, event: events.Key) -> None:
        if self.offered.is_open and not self._fits(self.offered.chosen):
            # Keys that came at once: the list is that of an earlier text.
            self._offer()
        # The base class handles Enter as a line break before it checks bindings.
        is_taken = self.offered.is_open and self._choose(event.key)
        if is_taken or event.key == "enter":
            event.stop()
            event.prevent_default()
            if not is_taken:
                self.action_send()
            return
        await super()._on_key(event)

    def _choose(self, key: str) -> bool:
        """Handle a key while completions are offered; return whether it was for them."""
        if key in ("up", "down"):
            step = self.offered.action_cursor_up if key == "up" else self.offered.action_cursor_down
            step()
        elif key == "escape":
            self.offered.offer(())
        elif key == "tab":
            self.take_completion()
        elif key == "enter" and self.text.strip() != self.offered.chosen.strip():
            self.take_completion()
            command = parse(self.text)
            if command is not None and not command[0].needs_argument:
                self.action_send()
        else:
            return False
        return True

    def take_completion(self) -> None:
        """Replace the typed word by the highlighted completion."""
        row, column = self.cursor_location
        begin, _ = completions(self.document.get_line(row)[:column], self.paths)
        self.replace(self.offered.chosen, (row, begin), (row, column))
        self.offered.offer(())

    def on_text_area_changed(self) -> None:
        """Offer completions."""
        self._offer()

    def _offer(self) -> None:
        self.offered.offer(self._completions())

    def _fits(self, completion: str) -> bool:
        return any(text == completion for text, _ in self._completions())

    def _completions(self) -> Sequence[tuple[str, str]]:
        """Return the completions of what stands before the cursor."""
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        return () if row and before.startswith("/") else completions(before, self.paths)[1]

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take the completion that was clicked."""
        event.stop()
        self.take_completion()

    def action_send(self) -> None:
        """Send the text; the receiver clears the prompt."""
        if self.text.strip():
            self.post_message(self.Sent(self.text.strip()))

    def action_undo(self) -> None:
        """Undo an edit; without any to undo in an empty prompt, suspend the program."""
        if self.text or self.history.undo_stack:
            super().action_undo()
        else:
            self.app.action_suspend_process()

    def action_new_line(self) -> None:
        """Break the line at the cursor."""
        self.insert("\n")

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up, or from the first line to the previous question."""
        if not select and self.navigator.is_first_wrapped_line(self.cursor_location):
            self._recall(self._place - 1)
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down, or from the last line to the next question."""
        if not select and self.navigator.is_last_wrapped_line(self.cursor_location):
            self._recall(self._place + 1)
        else:
            super().action_cursor_down(select)

    def _recall(self, place: int) -> None:
        if not 0 <= place <= len(self._history) or place == self._place:
            return
        if self._place == len(self._history):
            self._draft = self.text
        self._place = place
        self.text = self._history[place] if place < len(self._history) else self._draft
        self.move_cursor(self.document.end)
