"""The last line: keys that do something now."""

from typing import ClassVar

from textual.app import RenderResult
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widget import Widget


class KeyLine(Widget):
    """Keys with their actions; a click on one presses it.

    Textual's footer makes a widget for each key whenever one changes, and leaks the former ones.
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
        """Subscribe to changes of the bindings."""
        self.screen.bindings_updated_signal.subscribe(self, self._follow)

    def _follow(self, screen: Screen[object]) -> None:
        shown = _listing(screen)
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def render(self) -> RenderResult:
        """Return the keys in one line, cut off at the edge of the screen."""
        return self._shown


def _listing(screen: Screen[object]) -> Content:
    """Return the first key of every shown action."""
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
