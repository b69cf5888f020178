"""Suggests what to leave out when documents take more tokens than there is room for."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hga_chat.display import displayable
from hga_chat.documents.survey import Counted
from hga_chat.documents.tree.kinds import FOLDERS_OF, Kind

_MOST_GLOBS = 8
_NAMED = 5
_WORTHWHILE = 0.02
_ASIDE = frozenset().union(*FOLDERS_OF.values())
_SPECIAL = re.compile(r"[\\*?\[\]!#]")


@dataclass(frozen=True)
class OverBudget:
    """Documents that take more tokens than there is room for."""

    total: int
    budget: int
    largest: tuple[tuple[str, int], ...]
    """Path and tokens of the largest documents, largest first."""
    folders: tuple[tuple[str, int], ...]
    """Path and tokens of the largest folders, without any that holds everything, largest first."""
    options: tuple[str, ...]
    """Options that make the rest fit; empty if no short list does."""
    is_fitted: bool = False
    """Whether ``--fit`` has already left out everything it may."""

    def __str__(self) -> str:
        """Return the message for the user: the figures, the largest files and what to do."""
        message = f"{self.total:,} tokens are over the budget of {self.budget:,}. Largest: "
        message += _listed(self.largest)
        if self.folders:
            message += f"; folders: {_listed(self.folders)}"
        if self.options:
            message += f"\nFor example, {' '.join(self.options)} makes it fit"
            return message + ("." if self.is_fitted else "; --fit chooses for you.")
        message += "\nName fewer files or a smaller folder"
        if self.is_fitted:
            return message + ": not even one file fits."
        return message + ", or let --fit leave files out."


def over_budget(
    counted: Sequence[Counted], budget: int, *, is_fitted: bool = False
) -> OverBudget | None:
    """Return a report if documents take more than ``budget`` tokens, else None."""
    total = sum(document.tokens for document in counted)
    if total <= budget:
        return None
    by_size = sorted(counted, key=lambda document: (-document.tokens, document.path))
    folders = [entry for entry in _folders(counted).most_common() if entry[1] < total]
    return OverBudget(
        total,
        budget,
        tuple((document.path, document.tokens) for document in by_size[:_NAMED]),
        tuple(folders[:_NAMED]),
        _excluding(by_size, total, budget) or _including(counted, folders, budget),
        is_fitted,
    )


def _listed(sizes: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{path} ({tokens:,})" for path, tokens in sizes)


def _folders(counted: Sequence[Counted]) -> Counter[str]:
    """Count the tokens below each folder; paths end with a slash."""
    tokens: Counter[str] = Counter()
    for document in counted:
        folder = ""
        for part in _parts(document.path):
            folder += f"{part}/"
            tokens[folder] += document.tokens
    del tokens["/"]  # the root of absolute paths
    return tokens


def _parts(path: str) -> list[str]:
    """Return the names of the folders in a path."""
    return path.split("/")[:-1]


def _excluding(by_size: Sequence[Counted], total: int, budget: int) -> tuple[str, ...]:
    """Exclude tests, examples and translations, then files, those that matter least first.

    Returns:
        Nothing if it takes many.
    """
    globs: list[str] = []
    left = list(by_size)
    for name in _folder_names(by_size):
        kept = [document for document in left if f"/{name}/" not in f"/{document.path}"]
        size = sum(document.tokens for document in kept)
        if kept and total - size >= _WORTHWHILE * total and total > budget:
            globs.append(f"{_escaped(name)}/")
            left, total = kept, size
    # Always keep one document: excluding everything helps nobody.
    worthwhile = [entry for entry in left if entry.tokens >= _WORTHWHILE * total]
    dropped: list[Counted] = []
    for document in sorted(worthwhile, key=lambda entry: (entry.importance, -entry.tokens)):
        if total <= budget or len(dropped) == len(left) - 1:
            break
        dropped.append(document)
        total -= document.tokens
    # A large one may make up for smaller ones before it.
    for document in sorted(dropped, key=lambda entry: entry.importance, reverse=True):
        if total + document.tokens <= budget:
            dropped.remove(document)
            total += document.tokens
    for document in dropped:
        # Without a slash the glob would also match files of that name in folders.
        has_namesake = any(other.path.endswith(f"/{document.path}") for other in by_size)
        globs.append("/" * has_namesake + _escaped(document.path))
    if total > budget or len(globs) > _MOST_GLOBS:
        return ()
    return tuple(f"--exclude {_quoted(glob)}" for glob in globs)


def _folder_names(counted: Sequence[Counted]) -> list[str]:
    """Return the names of test, example and translation folders, in the order to exclude them."""
    parts = {part for document in counted for part in _parts(document.path)}
    return [
        name
        for kind in (Kind.TEST, Kind.EXAMPLE, Kind.TRANSLATION)
        for name in sorted(parts)
        if name.lower() in FOLDERS_OF[kind]
    ]


def _including(
    counted: Sequence[Counted], folders: Sequence[tuple[str, int]], budget: int
) -> tuple[str, ...]:
    """Include the folder with the most imported files, or else the largest, of those that fit.

    None with tests, examples or translations.
    """
    fitting = [
        path
        for path, tokens in folders
        if tokens <= budget and not _ASIDE.intersection(path.lower().split("/"))
    ]
    imported = {
        path: sum(one.importance[1] for one in counted if one.path.startswith(path))
        for path in fitting
    }
    best = max(fitting, key=imported.__getitem__, default="")
    if best and not imported[best] and any(one.importance[1] for one in counted):
        return ()  # a program's documentation does not stand for it
    return (f"--include {_quoted(f'/{_escaped(best)}')}",) if best else ()


def _escaped(path: str) -> str:
    """Return a glob for a path, without characters that a terminal cannot show."""
    glob = "".join(
        _SPECIAL.sub(r"\\\g<0>", char) if displayable(char) == char not in "\n\t" else "?"
        for char in path
    )
    # Blanks at the end do not count.
    bare = glob.rstrip()
    return bare + "".join(f"[{blank}]" for blank in glob[len(bare) :])


def _quoted(glob: str) -> str:
    """Quote a glob for a shell."""
    return "'" + glob.replace("'", "'\\''") + "'"
