"""Completions of what is typed: commands after a slash, files after an at sign."""

import re
from collections.abc import Sequence

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from hga_chat.display import displayable
from hga_chat.screen.commands import COMMANDS
from hga_chat.screen.drawing.bars import QUIET

MOST = 6
_AT = re.compile(r"(?:^|(?<=\s))@(\S*)$")


def completions(before: str, paths: Sequence[str]) -> tuple[int, list[tuple[str, str]]]:
    """Return the completions of the last word of a text.

    Args:
        before: the text before the cursor.
        paths: paths of the documents.

    Returns:
        The offset at which the word begins, and each completion with a remark.
    """
    if re.fullmatch(r"/[a-z]*", before):
        found = [c for c in COMMANDS if c.name.startswith(before[1:])]
        return 0, [(f"/{c.name} " if c.argument else f"/{c.name}", c.help) for c in found]
    at = _AT.search(before)
    if at is None:
        return len(before), []
    typed = at[1].lower()
    ranked = sorted((rank, path) for path in paths if (rank := _rank(typed, path)) is not None)
    return at.start(), [(f"{path} ", "") for _, path in ranked[: 4 * MOST]]


def _rank(typed: str, path: str) -> tuple[int, int] | None:
    """Return a rank, lower is better: name begins with it, path contains it, letters in order."""
    lower = path.lower()
    name = lower.rsplit("/", 1)[-1]
    if name.startswith(typed):
        return 0, len(path)
    if typed in lower:
        return 1, len(path)
    at = -1
    for letter in typed:
        at = lower.find(letter, at + 1)
        if at < 0:
            return None
    return 2, len(path)


class Completions(OptionList, can_focus=False):
    """The list above the prompt, which keeps the focus and passes keys on."""

    def __init__(self) -> None:
        super().__init__(id="completions", compact=True)
        self._texts: list[str] = []

    @property
    def is_open(self) -> bool:
        """Whether completions are shown."""
        return bool(self._texts)

    @property
    def chosen(self) -> str:
        """The highlighted completion."""
        return self._texts[self.highlighted or 0]

    def offer(self, found: Sequence[tuple[str, str]]) -> None:
        """Show completions with their remarks; hide the list if there are none."""
        texts = [text for text, _ in found]
        if texts == self._texts:
            return
        self._texts = texts
        self.display = bool(texts)
        self.clear_options()
        width = max((len(text) for text in texts), default=0)
        self.add_options(
            Option(Content.assemble(displayable(text).ljust(width), (f" {remark}", QUIET)))
            for text, remark in found
        )
        if texts:
            self.highlighted = 0
