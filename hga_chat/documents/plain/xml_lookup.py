"""Looks up elements and attributes in XML, whatever their namespace."""

from typing import Any


def local(element: Any) -> str:
    """Return an element's name without its namespace; empty for comments and the like."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def child(element: Any, name: str) -> Any:
    """Return the first child of this name; None without one."""
    return None if element is None else next(element.iterchildren(f"{{*}}{name}"), None)


def value(element: Any, name: str = "val") -> str | None:
    """Return an attribute in the element's own namespace; None without one."""
    if element is None:
        return None
    namespace = element.tag.rpartition("}")[0].lstrip("{")
    found: str | None = element.get(f"{{{namespace}}}{name}")
    return found
