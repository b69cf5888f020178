"""Files that a program wrote, told by what stands in them."""

import re
from pathlib import PurePath

_HEAD_CHARS = 2_000
_WEB = frozenset({".cjs", ".css", ".js", ".mjs"})
_LONG_LINE = 500
# In a comment near the top: Go's form, the tag that code hosts know, and what tools write.
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


def generated_by(path: str, text: str) -> str | None:
    """Say how a file was made if no person wrote it: ``generated``, ``minified``, ``source map``.

    Args:
        path: Its name.
        text: What stands in it.
    """
    suffix = PurePath(path).suffix.lower()
    head = text[:_HEAD_CHARS]
    if suffix in (".map", ".json") and _SOURCE_MAP.match(head.lstrip()) and '"mappings"' in text:
        return "source map"
    if suffix in _WEB and _is_minified(text):
        return "minified"
    if suffix in _WEB and _MAP_REFERENCE.search(text[-_HEAD_CHARS:]):
        return "generated"
    # Few files say the word at all; to look for it costs a hundredth of the expression.
    return "generated" if "generated" in head.lower() and _MARKER.search(head) else None


def _is_minified(text: str) -> bool:
    """Whether most of a script or style sheet stands in lines that nobody would write."""
    lines = text.split("\n")
    long = sum(len(line) for line in lines if len(line) > _LONG_LINE)
    return 2 * long > len(text)
