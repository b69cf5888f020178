"""Makes any string text that can be encoded, tokenized and saved."""

import re

_INVALID = re.compile("[\0\ud800-\udfff]")


def valid_text(text: str) -> str:
    """Return ``text`` with U+FFFD for NULs and for surrogates that are no half of a pair."""
    if not _INVALID.search(text):
        return text
    pairs = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return pairs.replace("\0", "\ufffd")
