"""Which documents a question may attend to: those that are ticked, or those that it names."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hga_chat.display import displayable

if TYPE_CHECKING:
    from hga_chat.documents import DocumentTokens

_NAMED = 3
_AT = re.compile(r"(?<!\S)@")
_WORD = re.compile(r"[^\s]+")
_CLOSING = ".,;:!?)]}'\"`"
"""What may follow a name in a sentence."""


@dataclass(frozen=True)
class Scope:
    """The documents of one question, by path."""

    limited_to: tuple[str, ...] = ()
    """Those that the question names after an at sign; it attends to no other. Empty: no limit."""
    without: tuple[str, ...] = ()
    """Those that were ticked off; empty if there is a limit."""

    def hides(self, path: str) -> bool:
        """Return whether the question does not attend to a document."""
        return path not in self.limited_to if self.limited_to else path in self.without

    def as_text(self) -> str:
        """Return one line for people; empty without a limit."""
        return f"Limited to {named(self.limited_to)}." if self.limited_to else ""


EVERYTHING = Scope()


def named(paths: Sequence[str], most: int = _NAMED) -> str:
    """Return the first few paths and the number of the others."""
    more = f" and {len(paths) - most:,} more" if len(paths) > most else ""
    return ", ".join(map(displayable, paths[:most])) + more


def matching(name: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Return the paths that a person means by a name.

    That is a path, the end of paths (``util.py`` for ``src/util.py``), or a folder, which stands
    for all paths in it. The first of these that any path has decides.
    """
    name = name.removeprefix("./").rstrip("/") if name != "/" else ""
    if not name:
        return ()
    tests = (
        lambda path: path == name,
        lambda path: path.endswith(f"/{name}"),
        lambda path: f"/{path}".find(f"/{name}/") >= 0,
    )
    found = (tuple(path for path in paths if test(path)) for test in tests)
    return next((some for some in found if some), ())


def nearest(name: str, paths: Sequence[str]) -> list[str]:
    """Return up to three paths whose spelling is closest to a name."""
    by_name = {path.rsplit("/", 1)[-1].lower(): path for path in reversed(paths)}
    by_name |= {path.lower(): path for path in paths}
    close = difflib.get_close_matches(name.lower(), by_name, n=2 * _NAMED)
    return [*dict.fromkeys(by_name[one] for one in close)][:_NAMED]


def unknown_note(names: Iterable[str], paths: Sequence[str]) -> str:
    """Say that no document has these names, and which are spelled like them."""
    notes = []
    for name in names:
        near = nearest(name, paths)
        hint = f" Did you mean {', '.join(map(displayable, near))}?" if near else ""
        notes.append(f"No document is called {displayable(name)}.{hint}")
    return " ".join(notes)


def mentioned(question: str, paths: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the documents that a question names after at signs.

    Returns:
        Their paths in the order of ``paths``, and the names that no document has.
    """
    found: set[str] = set()
    unknown = []
    for at in _AT.finditer(question):
        rest = question[at.end() :]
        # A path may have spaces, so whole paths are looked for first.
        whole = [path for path in paths if rest.startswith(path) and _ends(rest[len(path) :])]
        if whole:
            found.add(max(whole, key=len))
            continue
        word = _WORD.match(rest)
        if word is None:
            continue
        names = [word[0], word[0].rstrip(_CLOSING)]
        some = next((some for name in names if (some := matching(name, paths))), ())
        found.update(some)
        if not some and names[1]:
            unknown.append(names[1])
    return tuple(path for path in paths if path in found), tuple(dict.fromkeys(unknown))


def _ends(rest: str) -> bool:
    """Return whether a name is over where ``rest`` begins."""
    return not rest.lstrip(_CLOSING) or rest.lstrip(_CLOSING)[0].isspace()


def groups_left_out(
    scope: Scope, layout: "DocumentTokens", document_start: int, size: int, sinks: int
) -> list[int]:
    """Return the groups of the session that hold nothing but documents outside a scope.

    Args:
        scope: of a question.
        layout: the documents.
        document_start: position of their first token.
        size: tokens of a group.
        sinks: tokens at the start of the session that are never left out.
    """
    groups: list[int] = []
    start = end = 0
    for span in layout.documents:
        if scope.hides(span.document.path):
            # Neighbours share a group at their border, which is left out with both of them.
            start = start if end == span.start and end > start else span.start
            end = span.end
            first = -(-max(document_start + start, sinks) // size)
            last = (document_start + end) // size
            groups += range(max(first, groups[-1] + 1 if groups else 0), last)
    return groups
