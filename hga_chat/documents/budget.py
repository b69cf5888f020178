"""How many tokens documents take, and what to leave out when they are too many."""

import re
from dataclasses import dataclass

from hga_chat.documents.layout import DocumentTokens

_LARGEST = 8
_SPECIAL = re.compile(r"[\\*?\[\]!#]")


@dataclass(frozen=True)
class OverBudget:
    """Documents that take more tokens than there is room for."""

    total: int
    budget: int
    largest: tuple[tuple[str, int], ...]
    """Path and tokens of the largest documents, largest first."""
    exclude: tuple[str, ...]
    """Globs that leave out enough of the largest documents, if leaving out some is enough."""

    def __str__(self) -> str:
        """Return the message for the user: the figures, the largest files and what to do."""
        named = ", ".join(f"{path} ({tokens:,})" for path, tokens in self.largest[:5])
        message = f"{self.total:,} tokens are over the budget of {self.budget:,}; largest: {named}"
        if self.exclude:
            options = " ".join(f"--exclude '{glob}'" for glob in self.exclude)
            return f"{message}\nLeave some out, for example with {options}"
        return f"{message}\nName fewer files or a smaller part"


def token_counts(layout: DocumentTokens) -> tuple[tuple[str, int], ...]:
    """Return path and tokens of each document, in reading order."""
    return tuple((span.document.path, span.tokens) for span in layout.documents)


def over_budget(layout: DocumentTokens, budget: int) -> OverBudget | None:
    """Return what to report if the documents take more than ``budget`` tokens, else None."""
    total = len(layout)
    if total <= budget:
        return None
    by_size = sorted(token_counts(layout), key=lambda entry: (-entry[1], entry[0]))
    left, globs = total, []
    # The last one always stays: excluding everything helps nobody.
    for path, tokens in by_size[:-1]:
        if left <= budget:
            break
        left -= tokens
        # A bare name would leave out its namesakes in folders as well.
        alike = any(other.endswith(f"/{path}") for other, _ in by_size)
        globs.append("/" * alike + _SPECIAL.sub(r"\\\g<0>", path))
    exclude = tuple(globs) if left <= budget and len(globs) <= _LARGEST else ()
    return OverBudget(total, budget, tuple(by_size[:_LARGEST]), exclude)
