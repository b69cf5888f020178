"""The documents, with their lengths and their shares of an answer's attention."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.content import Content
from textual.message import Message
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from hga_chat.display import displayable
from hga_chat.screen.drawing.panel import Panel

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens

_NUMBERS = 13
"""Cells for the figures on the right."""
MUCH = 0.1
"""Share from which a document is highlighted."""


@dataclass
class Entry:
    """A document or a folder."""

    name: str
    tokens: int = 0
    share: float = 0.0
    number: int | None = None
    """Number of the document; None for a folder."""


class DocumentTree(Tree[Entry], Panel):
    """Folders and documents with token counts and shares of the trace that is shown."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g,home", "jump(0)", "First document", show=False),
        Binding("G,end", "jump(-1)", "Last document", show=False),
        Binding("e", "edit", "Editor"),
    ]

    class Opened(Message):
        """The user opened a document, here or in an editor."""

        def __init__(self, number: int, *, in_editor: bool) -> None:
            super().__init__()
            self.number = number
            self.in_editor = in_editor

    def __init__(self) -> None:
        super().__init__("", Entry("documents"), id="documents")
        self.show_root = False
        self.show_guides = False
        self.guide_depth = 2
        self._title = "Documents"
        self._leaves: list[TreeNode[Entry]] = []

    def lay_out(self, layout: "DocumentTokens | None") -> None:
        """Show the documents of a layout in order, grouped by folder."""
        self.root.remove_children()
        self._leaves = []
        if layout is None:
            self.root.add_leaf("", Entry("none: ask about anything"))
            self._fit()
            return
        folders: dict[tuple[str, ...], TreeNode[Entry]] = {(): self.root}
        paths = _joined([_shown(span.document.path).split("/") for span in layout.documents])
        shared = _shared_parents(paths)
        self._title = "/".join(paths[0][:shared]) or "Documents"
        self._head()
        for span, (*parents, name) in zip(layout.documents, paths, strict=True):
            path: tuple[str, ...] = ()
            for parent in parents[shared:]:
                above, path = folders[path], (*path, parent)
                if path not in folders:
                    folders[path] = above.add("", Entry(f"{parent}/"), expand=True)
                _entry(folders[path]).tokens += span.tokens
            entry = Entry(name, span.tokens, number=len(self._leaves))
            self._leaves.append(folders[path].add_leaf("", entry))
        self._fit()

    def _fit(self) -> None:
        """Limit the height to the number of lines."""
        lines = self.last_line + 1
        self.styles.max_height = max(lines, 1) + self.gutter.height

    def on_tree_node_expanded(self) -> None:
        """Fit the height to an opened folder."""
        self._fit()

    def on_tree_node_collapsed(self) -> None:
        """Fit the height to a closed folder."""
        self._fit()

    def on_tree_node_selected(self, event: Tree.NodeSelected[Entry]) -> None:
        """Open the chosen document."""
        event.stop()
        self._open(event.node, in_editor=False)

    def _open(self, node: TreeNode[Entry] | None, *, in_editor: bool) -> None:
        number = _entry(node).number if node is not None else None
        if number is not None:
            self.post_message(self.Opened(number, in_editor=in_editor))

    def action_edit(self) -> None:
        """Open the document at the cursor in the user's editor."""
        self._open(self.cursor_node, in_editor=True)

    def action_jump(self, line: int) -> None:
        """Go to the first or the last line."""
        self.cursor_line = line % max(self.last_line + 1, 1)

    def show_shares(self, shares: Sequence[float]) -> None:
        """Show the share of each document."""
        totals: dict[TreeNode[Entry], float] = {}
        for leaf, share in zip(self._leaves, shares, strict=True):
            for node in _upwards(leaf):
                totals[node] = totals.get(node, 0.0) + share
        for node, share in totals.items():
            is_seen = f"{share:.0%}" != f"{_entry(node).share:.0%}"
            _entry(node).share = share
            if is_seen:
                node.refresh()

    def shares(self) -> dict[str, float]:
        """Return the share of each document by its name."""
        return {_entry(leaf).name: _entry(leaf).share for leaf in self._leaves}

    def on_resize(self) -> None:
        """Keep the figures at the right edge."""
        self._head()
        self._invalidate()

    def _head(self) -> None:
        """Put the heads of the columns into the border, above the figures."""
        heads = " tokens  read" if self._leaves or self.root.children else ""
        room = max(self.scrollable_content_region.width - len(heads) - 1, 4)
        title = Content(self._title).truncate(room, ellipsis=True)
        line = "─" * max(room - title.cell_length - 1, 0)
        self.border_title = Content.assemble(title, (f" {line} ", "$panel"), heads.strip())

    def render_label(self, node: TreeNode[Entry], base_style: Style, style: Style) -> Text:
        """Return a name on the left, with its tokens and share on the right."""
        entry = _entry(node)
        depth = len(list(_upwards(node))) - 2
        mark = ("▾ " if node.is_expanded else "▸ ") if node.allow_expand else "  "
        # Guides are hidden, but the indentation is there.
        width = self.scrollable_content_region.width - self.guide_depth * (depth + 1)
        name = Text(mark + entry.name, style=base_style + style, no_wrap=True)
        if not entry.tokens:
            return name
        name.truncate(max(width - _NUMBERS, 4), overflow="ellipsis", pad=True)
        name.append(f"{entry.tokens:>8,}", style=base_style + style + Style(dim=not node.is_root))
        share = f"{entry.share:>5.0%}" if entry.share >= 0.005 else " " * 5
        accent = self.app.theme_variables["accent"]
        much = Style(color=Color.parse(accent).rich_color) if entry.share >= MUCH else Style()
        name.append(share, style=base_style + style + much)
        return name


def _upwards(node: TreeNode[Entry]) -> Iterator[TreeNode[Entry]]:
    """Yield the node and all nodes above it."""
    above: TreeNode[Entry] | None = node
    while above is not None:
        yield above
        above = above.parent


def _joined(paths: list[list[str]]) -> list[list[str]]:
    """Return paths in which a folder that holds only another folder is joined with it."""
    inside = Counter(tuple(path[:depth]) for path in paths for depth in range(1, len(path)))
    joined = []
    for path in paths:
        parts: list[str] = []
        for depth, part in enumerate(path):
            is_only = depth and depth < len(path) - 1
            if is_only and inside[tuple(path[:depth])] == inside[tuple(path[: depth + 1])]:
                parts[-1] += f"/{part}"
            else:
                parts.append(part)
        joined.append(parts)
    return joined


def _shared_parents(paths: Sequence[Sequence[str]]) -> int:
    """Return the number of folders that all paths begin with."""
    levels = zip(*(path[:-1] for path in paths), strict=False)
    return sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))


def _shown(path: str) -> str:
    return displayable(path).replace("\n", "␤")


def _entry(node: TreeNode[Entry]) -> Entry:
    assert node.data is not None
    return node.data
