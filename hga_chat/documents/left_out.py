"""Says in a line what documents contain that is not in their text."""

from collections import Counter
from collections.abc import Iterable

from hga_chat.documents.types import Document

_MOST = 5


def left_out_note(documents: Iterable[Document]) -> str | None:
    """Return a line on what is left out of the documents; None if nothing is."""
    found = [document for document in documents if document.left_out]
    if not found:
        return None
    if len(found) == 1:
        return f"Left out of {found[0].path}: {', '.join(found[0].left_out)}"
    # "images (3)" counts as "images".
    kinds = Counter(
        kind
        for document in found
        for kind in {part.partition(" (")[0] for part in document.left_out}
    )
    named = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    what = ", ".join(named[:_MOST]) + ", …" * (len(named) > _MOST)
    return f"Left out of {len(found):,} documents: {what}; 'hga-chat ingest --dry-run' lists them"
