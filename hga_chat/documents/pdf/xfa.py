"""Reads dynamic forms: XFA (XML Forms Architecture 3.3), whose pages are not in the PDF.

The pages of such a PDF only say that another viewer is needed. What it shows is in two XML
documents: a template of texts and fields, and the data that fills them. Data belong to the fields
whose names, and those of the subforms around them, they have; a subform is repeated for each of
its data.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lxml import etree
from pypdf import PdfReader
from pypdf.generic import StreamObject

from hga_chat.documents.pdf.glyphs import TooMuchError
from hga_chat.documents.pdf.objects import dictionary, items, resolved, text_of
from hga_chat.documents.plain.xml_lookup import child, local
from hga_chat.documents.sandbox.limits import MAX_TEXT_CHARS

_CONTAINERS = frozenset({"subform", "subformSet", "area", "pageSet", "pageArea"})
_PARTS = _CONTAINERS | {"draw", "field", "exclGroup"}
_NOT_SHOWN = frozenset({"hidden", "invisible", "inactive"})
_NOT_TEXT = frozenset({"image", "arc", "line", "rectangle"})
_MAX_DEPTH = 100
_MAX_PARTS = 200_000
_POSITION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(mm|cm|in|pt)?")
_POINTS = {"mm": 72 / 25.4, "cm": 72 / 2.54, "in": 72.0, "pt": 1.0}
_ROW_POINTS = 6.0
_INDEX = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True)
class Form:
    """What a dynamic form shows, and how many parts of it are hidden until scripts show them."""

    lines: tuple[str, ...]
    hidden: int


def form_of(reader: PdfReader) -> Form:
    """Read a dynamic form. Fields are written as ``caption: value``; buttons are left out."""
    packets = _packets(reader)
    template, datasets = (_parsed(packets.get(name, b"")) for name in ("template", "datasets"))
    if template is None:
        return Form((), 0)
    data = next((inner for inner in _children(datasets) if local(inner) == "data"), None)
    writer = _Writer(datasets)
    lines: list[str] = []
    count = 0
    for line in writer.lines(template, _Data(data), 0):
        lines.append(line)
        count += len(line) + 1
        if count > MAX_TEXT_CHARS:
            break
    return Form(tuple(lines), writer.hidden)


def _packets(reader: PdfReader) -> dict[str, bytes]:
    """Return the parts of the form by name; one stream may hold them all."""
    xfa = resolved(dictionary(reader.root_object.get("/AcroForm")).get("/XFA"))
    if isinstance(xfa, StreamObject):
        whole = _parsed(xfa.get_data())
        return {local(part): etree.tostring(part) for part in _children(whole)}
    parts = items(xfa)
    return {
        text_of(name): stream.get_data()
        for name, stream in zip(parts[::2], map(resolved, parts[1::2]), strict=False)
        if isinstance(stream, StreamObject)
    }


def _parsed(data: bytes) -> Any:
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, recover=True
    )
    try:
        return etree.fromstring(data, parser) if data.strip() else None
    except (etree.XMLSyntaxError, ValueError):
        return None


def _children(element: Any) -> list[Any]:
    return [] if element is None else [inner for inner in element if local(inner)]


class _Data:
    """A group of the data, and how many of its values of each name were given to a field."""

    def __init__(self, element: Any) -> None:
        self.element = element
        self._values: defaultdict[str, list[Any]] = defaultdict(list)
        self._taken: Counter[str] = Counter()
        for inner in _children(element):
            self._values[local(inner)].append(inner)

    def all(self, name: str) -> list[Any]:
        """Return the values of a name."""
        return self._values.get(name, [])

    def next(self, name: str) -> Any:
        """Return the next value of a name; None if there is none left."""
        found = self.all(name)
        self._taken[name] += 1
        return found[self._taken[name] - 1] if self._taken[name] <= len(found) else None


class _Writer:
    """Writes a template with its data."""

    def __init__(self, datasets: Any) -> None:
        self.hidden = 0
        self._count = 0
        self._datasets = datasets

    def lines(self, element: Any, data: _Data, depth: int) -> Iterator[str]:
        """Yield the lines of what is in an element of the template.

        Raises:
            TooMuchError: The form has more parts than the limit.
        """
        if depth > _MAX_DEPTH:
            return
        for inner in _ordered(element):
            self._count += 1
            if self._count > _MAX_PARTS:
                raise TooMuchError(f"more than {_MAX_PARTS:,} parts of a form")
            kind = local(inner)
            if inner.get("presence") in _NOT_SHOWN:
                self.hidden += kind in _PARTS
            elif kind in _CONTAINERS:
                for group in _groups(inner, data):
                    yield from self.lines(inner, group, depth + 1)
            elif kind == "draw":
                yield from _texts(child(inner, "value"))
            elif kind == "exclGroup":
                chosen = _text(_bound(inner, data))
                for option in _children(inner):
                    if local(option) == "field" and option.get("presence") not in _NOT_SHOWN:
                        yield from self._field(option, chosen or _own_value(option))
            elif kind == "field":
                bound = _bound(inner, data)
                yield from self._field(inner, _own_value(inner) if bound is None else _text(bound))

    def _field(self, element: Any, value: str) -> Iterator[str]:
        ui = child(element, "ui")
        kinds = {local(inner) for inner in _children(ui)}
        caption = " ".join(_texts(child(child(element, "caption"), "value")))
        if kinds & {"button", "barcode"}:
            return
        if "checkButton" in kinds:
            on = next(iter(_items(element, "1") or _items(element, None)), "1")
            yield f"{'☑' if value and value == on else '☐'} {caption}".rstrip()
            return
        if "passwordEdit" in kinds:
            value = ""
        names = self._choices(element)
        value = ", ".join(names.get(line, line) for line in value.splitlines())
        if caption or value:
            yield f"{caption}: {value}".strip() if caption else value

    def _choices(self, element: Any) -> dict[str, str]:
        """Return what the values of a list of choices are called."""
        saved, shown = _items(element, "1"), _items(element, None)
        names = dict(zip(saved, shown, strict=False))
        listed = child(element, "bindItems")
        if listed is not None:
            label, value = listed.get("labelRef", "$"), listed.get("valueRef", "$")
            for entry in _at(self._datasets, listed.get("ref", "")):
                names.setdefault(_part(entry, value), _part(entry, label))
        return {value: name for value, name in names.items() if value and name}


def _ordered(element: Any) -> Sequence[Any]:
    """Return the children in reading order: as they flow, or by their place, row by row."""
    children = _children(element)
    if local(element) == "template" or element.get("layout", "position") != "position":
        return children
    return sorted(children, key=lambda inner: (round(_place(inner, "y") / _ROW_POINTS), _x(inner)))


def _x(element: Any) -> float:
    return _place(element, "x")


def _place(element: Any, name: str) -> float:
    match = _POSITION.match(element.get(name, ""))
    return float(match[1]) * _POINTS[match[2] or "in"] if match else 0.0


def _groups(element: Any, data: _Data) -> list[_Data]:
    """Return the data for each time that a container is shown."""
    name = element.get("name")
    if local(element) != "subform" or not name or _match(element) == "none":
        return [data]
    found, occurs = data.all(name), child(element, "occur")
    if occurs is not None and len(found) > 1 and occurs.get("max", "1") != "1":
        return [_Data(group) for group in found]
    if occurs is not None and not found and occurs.get("initial", occurs.get("min")) == "0":
        return []
    return [_Data(data.next(name))]


def _match(element: Any) -> str:
    bind = child(element, "bind")
    return "" if bind is None else str(bind.get("match", ""))


def _bound(element: Any, data: _Data) -> Any:
    """Return the data of a field; None without any."""
    bind = child(element, "bind")
    if _match(element) == "none":
        return None
    reference = bind.get("ref", "") if bind is not None else ""
    if reference.startswith("$.") and data.element is not None:
        return next(iter(_at(data.element, reference[2:])), None)
    name = element.get("name")
    return data.next(name) if name else None


def _at(element: Any, reference: str) -> list[Any]:
    """Return the elements at a path of names, such as ``xfa.datasets.list.entry[*]``."""
    found = [] if element is None else [element]
    for name in _INDEX.sub("", reference).removeprefix("xfa.datasets.").split("."):
        found = [inner for outer in found for inner in _children(outer) if local(inner) == name]
    return found


def _part(element: Any, reference: str) -> str:
    """Return the text of an element, or its attribute or child of that name."""
    if reference in ("$", ""):
        return _text(element)
    return element.get(reference) or _text(child(element, reference))


def _items(element: Any, save: str | None) -> list[str]:
    """Return the values of a field's choices (``save`` 1), or what is shown for them."""
    lists = [inner for inner in _children(element) if local(inner) == "items"]
    chosen = next((found for found in lists if found.get("save") == save), None)
    return [_text(inner) for inner in _children(chosen)]


def _own_value(element: Any) -> str:
    return "\n".join(_texts(child(element, "value")))


def _texts(value: Any) -> Iterator[str]:
    """Yield the lines of a value, which may be rich text."""
    for inner in _children(value):
        if local(inner) in _NOT_TEXT:
            continue
        text = _rich(inner) if local(inner) == "exData" else "".join(inner.itertext())
        for line in text.splitlines():
            words = " ".join(line.split())
            if words:
                yield words


def _rich(element: Any) -> str:
    """Return the text of XHTML with the line ends of its paragraphs."""
    for inner in element.iter("{*}p", "{*}br", "{*}li"):
        inner.tail = "\n" + (inner.tail or "")
    return "".join(element.itertext())


def _text(element: Any) -> str:
    return "" if element is None else "".join(element.itertext()).strip()
