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
from hga_chat.documents.types import HEADING_JOINT
from hga_chat.screen.drawing.panel import Panel

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens
    from hga_chat.documents.layout import Chapter

_NUMBERS = 13
"""Cells for the figures on the right."""
_TOGGLES = Style.from_meta({"toggle": True})
"""Textual folds or unfolds a row where this is clicked."""
MUCH = 0.1
"""Share from which a document is highlighted."""


@dataclass
class Entry:
    """A folder, a document or a chapter."""

    name: str
    tokens: int = 0
    share: float = 0.0
    number: int | None = None
    """Number of the document; None for a folder."""
    chapter: int | None = None
    """Number of the chapter in its document; None for a document or folder."""


class DocumentTree(Tree[Entry], Panel):
    """Folders, documents and chapters with token counts and shares of the trace that is shown.

    Attributes:
        spans: the tokens ``[start, end)`` of each row that has text of its own, in order.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g,home", "jump(0)", "First document", show=False),
        Binding("G,end", "jump(-1)", "Last document", show=False),
        Binding("right", "fold(False)", "Chapters", show=False),
        Binding("left", "fold(True)", "Fold", show=False),
        Binding("e", "edit", "Editor"),
        Binding("x", "tick", "Tick on, off"),
    ]

    class Opened(Message):
        """The user opened a document or a chapter of it, here or in an editor."""

        def __init__(self, number: int, chapter: int | None, *, in_editor: bool) -> None:
            super().__init__()
            self.number = number
            self.chapter = chapter
            self.in_editor = in_editor

    class Ticked(Message):
        """The user ticked a document on or off."""

        def __init__(self, path: str, *, is_dropped: bool) -> None:
            super().__init__()
            self.path = path
            self.is_dropped = is_dropped

    def __init__(self) -> None:
        super().__init__("", Entry("documents"), id="documents")
        self._paths: list[str] = []
        self._dropped: set[int] = set()
        """Numbers of the documents that are ticked off."""
        self.show_root = False
        self.show_guides = False
        self.guide_depth = 2
        self.auto_expand = False
        self.spans: list[tuple[int, int]] = []
        self._title = "Documents"
        self._rows: list[TreeNode[Entry]] = []
        """The row of each span."""

    def lay_out(self, layout: "DocumentTokens | None") -> None:
        """Show the documents of a layout in order, grouped by folder."""
        self.root.remove_children()
        self.spans, self._rows = [], []
        self._paths = [span.document.path for span in layout.documents] if layout else []
        if layout is None:
            self.root.add_leaf("", Entry("none: ask about anything"))
            self._fit()
            return
        folders: dict[tuple[str, ...], TreeNode[Entry]] = {(): self.root}
        paths = _joined([_shown(span.document.path).split("/") for span in layout.documents])
        shared = _shared_parents(paths)
        self._title = "/".join(paths[0][:shared]) or "Documents"
        self._head()
        for number, (span, (*parents, name)) in enumerate(
            zip(layout.documents, paths, strict=True)
        ):
            path: tuple[str, ...] = ()
            for parent in parents[shared:]:
                above, path = folders[path], (*path, parent)
                if path not in folders:
                    folders[path] = above.add("", Entry(f"{parent}/"), expand=True)
                _entry(folders[path]).tokens += span.tokens
            entry = Entry(name, span.tokens, number=number)
            if span.chapters:
                # The chapters of a book on its own are its map; among other files they crowd.
                node = folders[path].add("", entry, expand=len(paths) == 1)
                self._add_chapters(node, span.chapters)
            else:
                self._add_span(folders[path].add_leaf("", entry), span.start, span.end)
        self._fit()

    def _add_chapters(self, node: TreeNode[Entry], chapters: "Sequence[Chapter]") -> None:
        """Add a row for each chapter below the chapter that its headings lie under."""
        rows: dict[tuple[str, ...], TreeNode[Entry]] = {}
        for number, chapter in enumerate(chapters):
            *above, name = chapter.label.split(HEADING_JOINT)
            parent = rows.get(tuple(above), node)
            if parent is not node:
                parent.allow_expand = True
                parent.expand()
            entry = Entry(_shown(name), number=_entry(node).number, chapter=number)
            row = rows[*above, name] = parent.add_leaf("", entry)
            for place in takewhile(lambda place: place is not node, _upwards(row)):
                _entry(place).tokens += chapter.end - chapter.start
            self._add_span(row, chapter.start, chapter.end)

    def _add_span(self, row: TreeNode[Entry], start: int, end: int) -> None:
        self.spans.append((start, end))
        self._rows.append(row)

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
        """Open the chosen document or chapter; fold or unfold a folder."""
        event.stop()
        if _entry(event.node).number is None:
            event.node.toggle()
        else:
            self._open(event.node, in_editor=False)

    def _open(self, node: TreeNode[Entry] | None, *, in_editor: bool) -> None:
        if node is not None and (number := _entry(node).number) is not None:
            self.post_message(self.Opened(number, _entry(node).chapter, in_editor=in_editor))

    def action_fold(self, close: bool) -> None:
        """Show the rows below the cursor, or hide them; with none to hide, go a level up."""
        node = self.cursor_node
        if node is None:
            return
        if not close:
            node.expand()
        elif node.allow_expand and node.is_expanded:
            node.collapse()
        elif node.parent is not None and node.parent is not self.root:
            self.move_cursor(node.parent)

    def action_edit(self) -> None:
        """Open the document at the cursor in the user's editor."""
        self._open(self.cursor_node, in_editor=True)

    def action_tick(self) -> None:
        """Tick the document at the cursor on or off."""
        number = _entry(self.cursor_node).number if self.cursor_node is not None else None
        if number is not None:
            is_dropped = number in self._dropped
            self.post_message(self.Ticked(self._paths[number], is_dropped=is_dropped))

    def show_ticks(self, dropped: Sequence[str]) -> None:
        """Show which documents are ticked off."""
        self._dropped = {number for number, path in enumerate(self._paths) if path in dropped}
        self._invalidate()
        self.refresh()

    def action_jump(self, line: int) -> None:
        """Go to the first or the last line."""
        self.cursor_line = line % max(self.last_line + 1, 1)

    def show_shares(self, shares: Sequence[float]) -> None:
        """Show the share of each span, and in the rows above it what they add up to."""
        totals: dict[TreeNode[Entry], float] = {}
        for row, share in zip(self._rows, shares, strict=True):
            for node in _upwards(row):
                totals[node] = totals.get(node, 0.0) + share
        for node, share in totals.items():
            is_seen = f"{share:.0%}" != f"{_entry(node).share:.0%}"
            _entry(node).share = share
            if is_seen:
                node.refresh()

    def shares(self) -> dict[str, float]:
        """Return the share of each document and chapter by its name."""
        nodes = {node for row in self._rows for node in _upwards(row)}
        return {_entry(n).name: _entry(n).share for n in nodes if _entry(n).number is not None}

    def on_resize(self) -> None:
        """Keep the figures at the right edge."""
        self._head()
        self._invalidate()

    def _head(self) -> None:
        """Put the heads of the columns into the border, above the figures."""
        heads = " tokens  read" if self.root.children else ""
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
        name = Text(no_wrap=True).append(mark, base_style + style + _TOGGLES)
        is_dropped = entry.number in self._dropped
        name.append(f"× {entry.name}" if is_dropped else entry.name, base_style + style)
        if is_dropped:
            name.stylize(Style(dim=True))
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
