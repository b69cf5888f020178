"""Looking things up in the XML of Word documents, whichever of its namespaces they are in."""

from typing import Any


def local(element: Any) -> str:
    """The name of an element without its namespace; empty for what is none."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def child(element: Any, name: str) -> Any:
    """The first child of this name; None where there is none."""
    return None if element is None else next(element.iterchildren(f"{{*}}{name}"), None)


def value(element: Any, name: str = "val") -> str | None:
    """An attribute in the element's own namespace."""
    if element is None:
        return None
    namespace = element.tag.rpartition("}")[0].lstrip("{")
    found: str | None = element.get(f"{{{namespace}}}{name}")
    return found
