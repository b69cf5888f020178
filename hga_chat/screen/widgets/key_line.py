"""The last line: which keys do something now."""

from typing import ClassVar

from textual.app import RenderResult
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widget import Widget


class KeyLine(Widget):
    """Keys and what they do; a click on one presses it.

    One widget for all of them: Textual's footer makes a widget for each whenever one changes, and
    never lets go of the former ones.
    """

    DEFAULT_CSS = """
    KeyLine { dock: bottom; height: 1; background: $footer-background; }
    """
    ALLOW_SELECT: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.auto_links = False
        self._shown = Content("")

    def on_mount(self) -> None:
        """Follow what keys do."""
        self.screen.bindings_updated_signal.subscribe(self, self._follow)

    def _follow(self, screen: Screen[object]) -> None:
        shown = _listing(screen)
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def render(self) -> RenderResult:
        """One after the other, cut off where the screen ends."""
        return self._shown


def _listing(screen: Screen[object]) -> Content:
    """The first key of every action that is shown."""
    firsts: dict[str, Binding] = {}
    for active in screen.active_bindings.values():
        if active.binding.show:
            firsts.setdefault(active.binding.action, active.binding)
    keys = []
    for binding in firsts.values():
        press = Style.from_meta({"@click": f"app.simulate_key({binding.key!r})"})
        text = Content.assemble(
            (f" {screen.app.get_key_display(binding)} ", "bold $footer-key-foreground"),
            (f"{binding.description} ", "$footer-description-foreground"),
        )
        keys.append(text.stylize(press))
    return Content("").join(keys)
