"""What an element's own ``style`` attribute says about where and whether its text is shown.

Style sheets are not applied. Syntax: CSS Style Attributes, CSS Syntax Module 3.
"""

import re

_COMMENT = re.compile(r"/\*.*?(?:\*/|$)", re.DOTALL)
# A declaration ends at a semicolon outside quotes and brackets.
_DECLARATION = re.compile(r"((?:[^;\"'()]|\"[^\"]*\"?|'[^']*'?|\([^)]*\)?|\))+)")
_IMPORTANT = re.compile(r"\s*!\s*important\s*$")
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
