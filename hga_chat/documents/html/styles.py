"""What styles say about where and whether an element's text is shown.

An element's own ``style`` attribute counts in all, style sheets as far as they place text
and choose fonts: scripts show what they hide. Syntax: CSS Style Attributes, CSS Syntax Module 3.
"""

import re
from functools import lru_cache

_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
# A declaration ends at a semicolon outside quotes and brackets.
_DECLARATION = re.compile(r"((?:[^;\"'()]|\"[^\"]*\"?|'[^']*'?|\([^)]*\)?|\))+)")
_IMPORTANT = re.compile(r"\s*!\s*important\s*$")
_RULE = re.compile(r"([^{}]*)\{([^{}]*)\}")
_SELECTOR = re.compile(r"\s*([A-Za-z][\w-]*)?(?:\.([\w-]+))?\s*")
_LENGTH = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(em|ex|rem|px|pt|%)")
_SMALLER = re.compile(r"(?:smaller|(?:x{1,2}-)?small|0?\.\d+r?em|\d{1,2}(?:\.\d*)?%)")
# What of style sheets counts.
_PROPERTIES = ("vertical-align", "float", "position", "font-family", "font")
_OF_USE = re.compile("|".join(_PROPERTIES))
# After the size comes the family.
_FONT = re.compile(r".*?\d(?:[a-z]+|%)(?:/\S+)?\s+(.+)")
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


def is_moved(style: dict[str, str], text: str) -> bool:
    """Whether text is not beside what is around it, such as the number of a line of verse.

    Letters that float to the left are initials.
    """
    if style.get("position") in {"absolute", "fixed"}:
        return True
    side = style.get("float", "none")
    return side in {"right", "inline-end"} or (side != "none" and text.strip().isdecimal())


def font_family(style: dict[str, str]) -> str:
    """Return the first font that a style names, in lower case; empty if it names none."""
    shorthand = _FONT.match(style.get("font", ""))
    families = style.get("font-family") or (shorthand[1] if shorthand else "")
    return families.partition(",")[0].strip("\"' ")


class StyleSheets:
    """How style sheets place text, and in which font, by rules for a tag, a class, or both."""

    def __init__(self) -> None:
        """Begin without rules."""
        self._rules: dict[tuple[str, str], dict[str, str]] = {}

    def add(self, sheet: str) -> None:
        """Add the rules of a style sheet; later ones count more."""
        for key, style in _rules(sheet):
            self._rules[key] = self._rules.get(key, {}) | style

    def style(self, tag: str, classes: str) -> dict[str, str]:
        """Return what the sheets say of an element with a ``class`` attribute."""
        if not self._rules:
            return {}
        names = classes.split()
        found: dict[str, str] = {}
        for key in ((tag, ""), *(("", name) for name in names), *((tag, name) for name in names)):
            found |= self._rules.get(key, {})
        return found


@lru_cache(maxsize=8)
def _rules(sheet: str) -> list[tuple[tuple[str, str], dict[str, str]]]:
    """Return the tags and classes of a style sheet's rules with what of them counts."""
    rules: list[tuple[tuple[str, str], dict[str, str]]] = []
    if not _OF_USE.search(sheet):
        return rules
    for match in _RULE.finditer(_COMMENT.sub(" ", sheet)):
        style = declarations(match[2]) if _OF_USE.search(match[2]) else {}
        if "vertical-align" in style:
            # Here, where the size is known that tells what a length means.
            style["vertical-align"] = shift(style) or "baseline"
        kept = {name: style[name] for name in _PROPERTIES if name in style}
        for part in match[1].split(",") if kept else ():
            selector = _SELECTOR.fullmatch(part)
            if selector and (selector[1] or selector[2]):
                rules.append((((selector[1] or "").lower(), selector[2] or ""), kept))
    return rules
