"""What styles say about where and whether an element's text is shown.

An element's own ``style`` attribute counts in all, style sheets as far as they raise and lower
text: scripts show what they hide. Syntax: CSS Style Attributes, CSS Syntax Module 3.
"""

import re

_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
# A declaration ends at a semicolon outside quotes and brackets.
_DECLARATION = re.compile(r"((?:[^;\"'()]|\"[^\"]*\"?|'[^']*'?|\([^)]*\)?|\))+)")
_IMPORTANT = re.compile(r"\s*!\s*important\s*$")
_RULE = re.compile(r"([^{}]*)\{([^{}]*)\}")
_SELECTOR = re.compile(r"\s*([A-Za-z][\w-]*)?(?:\.([\w-]+))?\s*")
_LENGTH = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(em|ex|rem|px|pt|%)")
_SMALLER = re.compile(r"(?:smaller|(?:x{1,2}-)?small|0?\.\d+r?em|\d{1,2}(?:\.\d*)?%)")
# Values that start a line of their own.
BLOCK_DISPLAYS = frozenset(
    {"block", "flex", "grid", "list-item", "table", "table-row", "flow-root"}
)


def declarations(style: str) -> dict[str, str]:
    """Return the values of a ``style`` attribute by property, in lower case.

    As in browsers, the last declaration of a property counts, or the last important one.
    """
    if ":" not in style:
        return {}
    values: dict[str, str] = {}
    important: set[str] = set()
    for match in _DECLARATION.finditer(_COMMENT.sub(" ", style)):
        name, colon, value = match[1].partition(":")
        name, value = name.strip().lower(), value.strip().lower()
        is_important = bool(_IMPORTANT.search(value))
        if not colon or not value or (name in important and not is_important):
            continue
        if is_important:
            important.add(name)
        values[name] = _IMPORTANT.sub("", value)
    return values


def shift(style: dict[str, str]) -> str:
    """Return "super" or "sub" for raised or lowered text, else nothing.

    A length counts if the text is smaller as well: initials are larger.
    """
    align = style.get("vertical-align", "")
    if align in {"super", "sub"}:
        return align
    length = _LENGTH.fullmatch(align)
    if not length or not float(length[1]) or not _SMALLER.fullmatch(style.get("font-size", "")):
        return ""
    return "sub" if length[1].startswith("-") else "super"


class StyleSheets:
    """Which elements style sheets raise or lower, by rules for a tag, a class, or both."""

    def __init__(self) -> None:
        """Begin without rules."""
        self._shifts: dict[tuple[str, str], str] = {}

    def add(self, sheet: str) -> None:
        """Add the rules of a style sheet; later ones count more."""
        if "vertical-align" not in sheet:
            return
        for match in _RULE.finditer(_COMMENT.sub(" ", sheet)):
            style = declarations(match[2])
            if "vertical-align" not in style:
                continue
            for part in match[1].split(","):
                selector = _SELECTOR.fullmatch(part)
                if selector and (selector[1] or selector[2]):
                    key = (selector[1] or "").lower(), selector[2] or ""
                    self._shifts[key] = shift(style)

    def shift(self, tag: str, classes: str) -> str:
        """Return how an element with a ``class`` attribute is shifted, see ``shift``."""
        if not self._shifts:
            return ""
        found = self._shifts.get((tag, ""), "")
        names = classes.split()
        for key in (*(("", name) for name in names), *((tag, name) for name in names)):
            found = self._shifts.get(key, found)
        return found
