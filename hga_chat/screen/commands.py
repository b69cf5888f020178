"""The commands: typed with a slash, chosen in the palette, listed in the help."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from textual.command import DiscoveryHit, Hit, Provider


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    help: str
    action: str
    """Action of the application; gets the text after the name if there is an ``argument``."""
    key: str = ""
    argument: str = ""
    """Name of the argument; empty if there is none."""
    needs_argument: bool = False


COMMANDS = (
    Command("help", "Keys and commands", "help", "F1"),
    Command("find", "Find text in the conversation", "find", "Ctrl+F", "TEXT"),
    Command("sources", "Open the sources of the last answer", "sources", "Ctrl+O", "NUMBER"),
    Command("verify", "Check whether the last answer depends on its sources", "verify"),
    Command("copy", "Copy the last answer, as Markdown", "copy", "F8"),
    Command("export", "Write the conversation as Markdown", "export", "", "FILE"),
    Command("reload", "Load files that changed, went or came", "reload"),
    Command("files", "List the documents, ticked on or off", "files"),
    Command("drop", "Tick a document off: questions leave it out", "drop", "", "FILE", True),
    Command("add", "Tick a document on again", "add", "", "FILE", True),
    Command("rename", "Give the session another title", "rename", "", "TITLE", True),
    Command("budget", "Share of the text that a word may attend to", "budget", "", "PERCENT"),
    Command(
        "context", "Change how many tokens the session can hold", "context", "", "TOKENS", True
    ),
    Command("model", "Switch to another model", "model", "", "NAME", True),
    Command("system", "Give the model other instructions", "system", "", "TEXT", True),
    Command("retry", "Ask the last question again", "retry", "Ctrl+R"),
    Command("edit", "Edit the last question", "edit", "F7"),
    Command("clear", "Forget all turns; keep the documents", "clear"),
    Command("undo", "Undo /clear, /edit or /retry; again: redo", "undo"),
    Command("think", "Let the model think before it answers", "think", "", "ON|OFF"),
    Command("map", "Map: this answer, all answers, or what was hardly read", "map_mode", "F5"),
    Command("layer", "Map: show one layer of the model, or all", "layer", "", "NUMBER"),
    Command("documents", "Show or hide the documents", "panel('documents')", "F2"),
    Command("blocks", "Show or hide the map", "panel('map')", "F3"),
    Command("memory", "Show or hide memory use", "panel('memory')", "F4"),
    Command("theme", "Colours: night, day or sixteen", "next_theme", "F6", "NAME"),
    Command("quit", "Quit", "quit", "Ctrl+Q"),
)


def parse(text: str) -> tuple[Command, str] | None:
    """Return the command that a line begins with and the rest; None if it is not a command."""
    name, _, rest = text.strip().partition(" ")
    if not name.startswith("/") or "\n" in text.strip():
        return None
    found = [c for c in COMMANDS if c.name == name[1:]]
    found = found or [c for c in COMMANDS if len(name) > 1 and c.name.startswith(name[1:])]
    return (found[0], rest.strip()) if len(found) == 1 else None


def is_command(text: str) -> bool:
    """Return whether a line is meant as a command: a slash and a word, not a path."""
    word = text.strip().split(maxsplit=1)[0] if text.strip() else ""
    return word.startswith("/") and "/" not in word[1:] and "\n" not in text.strip()


class PaletteCommands(Provider):
    """The commands in the palette."""

    async def discover(self) -> AsyncIterator[DiscoveryHit]:
        """Yield all commands."""
        for command in COMMANDS:
            yield DiscoveryHit(_title(command), self._run(command), help=command.help)

    async def search(self, query: str) -> AsyncIterator[Hit]:
        """Yield the commands that match."""
        matcher = self.matcher(query)
        for command in COMMANDS:
            text = f"{_title(command)}: {command.help}"
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, matcher.highlight(text), self._run(command))

    def _run(self, command: Command) -> Any:
        return lambda: self.app.carry_out(command)  # type: ignore[attr-defined]


def _title(command: Command) -> str:
    return f"{command.name.capitalize()}" + (f"  ({command.key})" if command.key else "")
