"""pypdf's reader without its slowest part: objects of object streams are parsed when asked for.

pypdf parses all objects of an object stream with the first one, and tagged files have tens of
thousands of structure elements in one stream, which nobody asks for.
"""

import io
import re
from typing import Any

from pypdf import PdfReader
from pypdf.errors import PdfReadError
from pypdf.generic import IndirectObject, NullObject, PdfObject, StreamObject, read_object

from hga_chat.documents.pdf.objects import number

_INTEGER = re.compile(rb"\d{1,12}")
_SPACES = re.compile(rb"[\0\t\n\f\r ]*")


class LazyReader(PdfReader):
    """A ``PdfReader`` that parses objects of object streams one by one (ISO 32000-2, 7.5.7)."""

    def __init__(self, data: bytes) -> None:
        self._object_streams: dict[int, tuple[io.BytesIO, dict[int, int]]] = {}
        self._opening: set[int] = set()
        super().__init__(io.BytesIO(data))

    def _get_object_from_stream(self, indirect_reference: IndirectObject) -> Any:
        wanted = indirect_reference.idnum
        holder, _ = self.xref_objStm[wanted]
        found = self._object_streams.get(holder)
        if found is None:
            if holder in self._opening:
                raise PdfReadError("an object stream is in itself")
            self._opening.add(holder)
            try:
                found = _indexed(IndirectObject(holder, 0, self).get_object())
            finally:
                self._opening.discard(holder)
            self._object_streams[holder] = found
        stream, places = found
        value: PdfObject | None = NullObject()
        if wanted in places:
            stream.seek(places[wanted])
            value = read_object(stream, self)
        self.cache_indirect_object(0, wanted, value)
        return value


def _indexed(stream: Any) -> tuple[io.BytesIO, dict[int, int]]:
    """Return an object stream's data and where each object begins in it, by number."""
    if not isinstance(stream, StreamObject):
        raise PdfReadError("an object stream is missing")
    data = stream.get_data()
    first = int(number(stream.get("/First")))
    header = [int(digits) for digits in _INTEGER.findall(data[: max(first, 0)])]
    count = max(int(number(stream.get("/N"))), 0)
    places = {}
    for object_number, offset in zip(header[: 2 * count : 2], header[1::2], strict=False):
        spaces = _SPACES.match(data, first + offset)
        if spaces is not None and spaces.end() < len(data):
            places[object_number] = spaces.end()
    return io.BytesIO(data), places
