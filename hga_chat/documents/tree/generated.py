"""Recognises files that a program wrote by their text."""

import re
from pathlib import PurePath

_HEAD_CHARS = 2_000
_WEB = frozenset({".cjs", ".css", ".js", ".mjs"})
_LONG_LINE = 500
# In a comment near the top: Go's convention, the tag that code hosts know, and common wordings.
_MARKER = re.compile(
    r"""^\W{1,6}                         # the comment sign
    (?: .*\bcode\ generated\b.*\bdo\ not\ edit\b
      | @generated\b(?!\()
      | .*\b(?:auto-?|automatically\ )generated\b.*\bdo\ not\ (?:edit|modify|change)\b
      | .*\bgenerated\ by\b.*\bdo\ not\ (?:edit|modify|change)\b
    )""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_SOURCE_MAP = re.compile(r'\{(?=[^{]*"version"\s*:\s*3\b)(?=.*"mappings"\s*:)', re.DOTALL)
_MAP_REFERENCE = re.compile(r"^(//|/\*)# sourceMappingURL=", re.MULTILINE)


def how_generated(path: str, text: str) -> str | None:
    """Return ``generated``, ``minified`` or ``source map`` if a program wrote a file, else None.

    Args:
        path: The file's path.
        text: The file's text, at least its first section.
    """
    suffix = PurePath(path).suffix.lower()
    head = text[:_HEAD_CHARS]
    if suffix in (".map", ".json") and _SOURCE_MAP.match(head.lstrip()) and '"mappings"' in text:
        return "source map"
    if suffix in _WEB and _is_minified(text):
        return "minified"
    if suffix in _WEB and _MAP_REFERENCE.search(text[-_HEAD_CHARS:]):
        return "generated"
    # Few files contain the word, and searching for it is 100 times faster than the expression.
    return "generated" if "generated" in head.lower() and _MARKER.search(head) else None


def _is_minified(text: str) -> bool:
    """Whether most of a script or style sheet is in lines too long to be written by hand."""
    lines = text.split("\n")
    long = sum(len(line) for line in lines if len(line) > _LONG_LINE)
    return 2 * long > len(text)
