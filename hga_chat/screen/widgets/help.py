"""The help: all keys and commands."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from hga_chat.screen.commands import COMMANDS
from hga_chat.screen.drawing.bars import QUIET
from hga_chat.screen.widgets.key_line import KeyLine

KEYS = (
    (
        "Anywhere",
        (
            ("Tab  Shift+Tab", "next panel, previous panel"),
            ("Esc", "stop the answer and keep it so far; back to the prompt"),
            ("Ctrl+C", "copy the selection; stop the answer; twice: quit"),
            ("Ctrl+P", "all commands"),
        ),
    ),
    (
        "Outside the prompt",
        (
            ("?", "this help"),
            ("j k  g G", "down, up; first line, last line"),
            ("/  n  N", "find, next match, previous match"),
            ("e", "open the source, document or block in $EDITOR"),
            ("1 2 3", "ask a question of the first message; in the prompt with Enter"),
            ("q", "close the opened source or the help; else quit"),
            ("Ctrl+Z", "suspend; 'fg' in the shell resumes"),
        ),
    ),
    (
        "Prompt",
        (
            ("Enter", "send"),
            ("Ctrl+J  Shift+Enter", "new line"),
            ("Ctrl+G", "write the prompt in $EDITOR"),
            ("↑ ↓", "previous question, next question"),
            ("/  @", "begin a command, name a file; Tab completes"),
            ("PgUp PgDn", "scroll the conversation"),
        ),
    ),
    (
        "Conversation",
        (
            ("j k", "next, previous paragraph or source"),
            ("→ ←", "go word by word; the map shows what each one read"),
            ("Enter", "open the source"),
            ("c  y", "copy the paragraph or source; copy the whole answer"),
            ("r", "ask the last question again"),
        ),
    ),
    (
        "Documents",
        (
            ("Enter", "open the document or chapter"),
            ("→ ←", "show, hide its chapters"),
            ("x", "tick the document off: questions leave it out; on again"),
        ),
    ),
    (
        "Opened source, document or chapter",
        (
            ("→ ←", "next, previous source or chapter"),
            ("c", "copy it"),
        ),
    ),
    (
        "Map",
        (
            ("← ↑ ↓ →", "move between blocks"),
            ("Enter", "open the block; see which answers read it"),
            ("F5", "show this answer, all answers, or what was hardly read"),
            ("l  L", "next, previous layer of the model"),
        ),
    ),
)


class Help(ModalScreen[None]):
    """All keys and commands."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1,question_mark", "dismiss", "Back", key_display="Esc")
    ]

    def compose(self) -> ComposeResult:
        """Lay out the text with a key line."""
        with _Scrolled(id="help"):
            yield Static(help_text(), markup=False)
        yield KeyLine()


class _Scrolled(VerticalScroll):
    """Text that says in its border whether there is more below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False),
        Binding("k", "scroll_up", "Up", show=False),
        Binding("g", "scroll_home", "First line", show=False),
        Binding("G", "scroll_end", "Last line", show=False),
    ]

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Update the border."""
        super().watch_scroll_y(old_value, new_value)
        self.border_subtitle = "↓ more" if new_value < self.max_scroll_y else ""

    def on_resize(self) -> None:
        """Update the border."""
        self.watch_scroll_y(self.scroll_y, self.scroll_y)


def help_text() -> Content:
    """Return keys and commands as text."""
    lines: list[Content] = []
    for place, keys in KEYS:
        lines += [Content.styled(place, "bold $text-primary")]
        lines += [_line(key, text) for key, text in keys]
        lines += [Content("")]
    lines += [Content.styled("Commands", "bold $text-primary")]
    for command in COMMANDS:
        name = f"/{command.name} {command.argument}".strip()
        lines.append(_line(name, command.help, command.key))
    lines += [
        Content(""),
        Content.styled("The mouse selects text, opens sources and blocks.", QUIET),
        Content.styled("Brightness and percentages: attention above the answer's baseline.", QUIET),
        Content.styled(
            "“Read” means the model attended to it, not that it supports the answer.", QUIET
        ),
    ]
    return Content("\n").join(lines)


def _line(left: str, right: str, key: str = "") -> Content:
    return Content.assemble((f"  {left:<22}", "$text-accent"), right, (f"  {key}", QUIET))
