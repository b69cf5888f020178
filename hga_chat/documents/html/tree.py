"""Parses HTML and XHTML into a small tree whose texts know their lines.

HTML is parsed as the WHATWG HTML Standard says, by turbohtml; XHTML as XML, by lxml, if it is
well-formed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.entities import html5
from typing import Any

from lxml import etree

_XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'
_PREFIXES = re.compile(r"^(?:m|mml|math|svg|x?html):")
# What may come before the first element, which the parser drops without a place.
_PROLOG = re.compile(
    r"\s*(?:(?:<!--.*?-->|<!doctype[^>]*>|<\?[^>]*>)\s*)*", re.IGNORECASE | re.DOTALL
)
# Of XHTML that is not well-formed: elements that an HTML parser would leave open, and CDATA.
_CLOSED_AT_ONCE = re.compile(
    r"<([a-zA-Z][\w:.-]*)((?:\s+[\w:.-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'))?)*\s*)/>"
)
_CDATA = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_ENTITY = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|&([A-Za-z][A-Za-z0-9]*);", re.DOTALL)
_XML_ENTITIES = frozenset({"lt", "gt", "amp", "quot", "apos"})
_DROPS_NEWLINE = frozenset({"pre", "listing", "textarea"})
_VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Text:
    """Characters, the first of which is on line ``line`` of the source."""

    data: str
    line: int


@dataclass(slots=True)
class Element:
    """An element by its local name; ``line`` is that of the end of its start tag."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    line: int = 1
    children: "list[Element | Text]" = field(default_factory=list)

    def elements(self) -> "Iterator[Element]":
        """Iterate over the children that are elements."""
        return (child for child in self.children if isinstance(child, Element))

    def descendants(self) -> "Iterator[Element]":
        """Iterate over all elements below this one, in order."""
        open_elements = [self.elements()]
        while open_elements:
            for element in open_elements[-1]:
                yield element
                open_elements.append(element.elements())
                break
            else:
                open_elements.pop()

    def text(self) -> str:
        """Return all characters below this element."""
        parts: list[str] = []
        waiting: list[Element | Text] = [self]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Text):
                parts.append(node.data)
            else:
                waiting.extend(reversed(node.children))
        return "".join(parts)


def parse(text: str) -> Element:
    r"""Return the root of a page; ``text`` has ``\n`` line ends."""
    head = text[:2000]
    if head.lstrip().startswith("<?xml") or _XHTML in head.replace("'", '"'):
        root = _parse_xml(text)
        if root is not None:
            return root
        text = _CLOSED_AT_ONCE.sub(_close, text)
        text = _CDATA.sub(lambda match: _escaped(match[1]), text)
    return _parse_html(text)


def _close(match: re.Match[str]) -> str:
    return match[0] if match[1].lower() in _VOID else f"<{match[1]}{match[2]}></{match[1]}>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _parse_html(text: str) -> Element:
    import turbohtml

    document = turbohtml.parse(text, source_locations=True)
    root = Element("#document")
    prolog = _PROLOG.match(text)
    line = 1 + (prolog[0].count("\n") if prolog else 0)
    waiting: list[tuple[Element, Iterator[Any], int]] = [(root, iter(document.children), 0)]
    while waiting:
        parent, nodes, end = waiting[-1]
        node = next(nodes, None)
        if node is None:
            line = max(line, end)
            waiting.pop()
        elif isinstance(node, turbohtml.Element):
            location = node.source_location
            end = 0
            if location is not None:
                start = location.start_tag
                line = max(line, start.end_line)
                if node.tag in _DROPS_NEWLINE and text.startswith("\n", start.end_offset):
                    line += 1
                end = location.end_tag.end_line if location.end_tag else 0
            element = Element(_local(node.tag), _attributes(node.attrs), line)
            parent.children.append(element)
            # With a shadow tree, what is shown is that tree, and the children in its slots.
            is_shadowed = node.shadow_root is not None or node.tag == "slot"
            inner = node.flattened_children if is_shadowed else node.children
            waiting.append((element, iter(inner), end))
        elif isinstance(node, turbohtml.DocumentFragment):
            waiting.append((parent, iter(node.children), 0))
        elif isinstance(node, turbohtml.Text):
            parent.children.append(Text(node.data, line))
            line += node.data.count("\n")
        elif isinstance(node, turbohtml.Comment) and parent is not root:
            line += node.data.count("\n")
    return root


def _local(name: str) -> str:
    return _PREFIXES.sub("", name)


def _attributes(given: Any) -> dict[str, str]:
    return {
        name.removeprefix("xlink:"): value if isinstance(value, str) else " ".join(value or ())
        for name, value in given.items()
    }


def _parse_xml(text: str) -> Element | None:
    """Return the root of XML with the entities of HTML; None if it is not well-formed."""
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities="internal", no_network=True, load_dtd=False
    )
    try:
        data = _ENTITY.sub(_character, text).lstrip().encode("utf-8", "replace")
        top = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    offset = len(text) - len(text.lstrip())
    line = 1 + text.count("\n", 0, offset)
    first = line - 1
    root = Element("#document")
    waiting: list[tuple[Element, Iterator[Any], Any]] = [(root, iter((top,)), None)]
    while waiting:
        parent, nodes, own = waiting[-1]
        node = next(nodes, None)
        if node is None:
            waiting.pop()
            if own is not None and waiting:
                line = _append(waiting[-1][0], own.tail if own is not top else None, line)
        elif not isinstance(node.tag, str):
            is_reference = node.tag is etree.Entity
            line += 0 if is_reference else (node.text or "").count("\n")
            line = _append(parent, node.tail, line)
        else:
            line = max(line, first + (node.sourceline or 0))
            element = Element(_xml_name(node.tag), _xml_attributes(node.attrib), line)
            parent.children.append(element)
            line = _append(element, node.text, line)
            waiting.append((element, iter(node), node))
    return root


def _append(parent: Element, data: str | None, line: int) -> int:
    if not data:
        return line
    parent.children.append(Text(data, line))
    return line + data.count("\n")


def _character(match: re.Match[str]) -> str:
    name = match[1]
    if not name or name in _XML_ENTITIES or f"{name};" not in html5:
        return match[0]
    return _escaped(html5[f"{name};"])


def _xml_name(tag: str) -> str:
    return tag.rpartition("}")[2]


def _xml_attributes(given: Any) -> dict[str, str]:
    names = {"http://www.idpf.org/2007/ops": "epub:", "http://www.w3.org/1999/xlink": "", "": ""}
    attributes = {}
    for name, value in given.items():
        namespace, _, local = str(name).rpartition("}")
        attributes[names.get(namespace.lstrip("{"), "other:") + local] = str(value)
    return attributes
