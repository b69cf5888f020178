"""Object streams, beside pypdf's own reader of them."""

import io

import pytest
from pypdf import PdfReader
from pypdf.errors import PdfReadError

from hga_chat.documents.pdf.lazy_reader import LazyReader
from tests.hga_chat.documents.pdf.conftest import stream


def _file(objects: bytes, header: bytes, *, holder: int = 4, count: int = 2) -> bytes:
    """Return a file whose objects 1 and 2 are in an object stream, object 4 or ``holder``."""
    entries = b"/Type /ObjStm /N %d /First %d" % (count, len(header))
    body = b"%%PDF-1.7\n4 0 obj\n%b\nendobj\n" % stream(header + objects, entries)
    rows = b"".join(
        (
            b"\0\0\0\0",
            b"\2\0%b\0" % bytes((holder,)),
            b"\2\0%b\1" % bytes((holder,)),
            b"\0\0\0\0",
            b"\1\0\x09\0",
            b"\1%b\0" % len(body).to_bytes(2),
        )
    )
    xref = stream(rows, b"/Type /XRef /Size 6 /W [1 2 1] /Root 1 0 R")
    return body + b"5 0 obj\n%b\nendobj\nstartxref\n%d\n%%%%EOF" % (xref, len(body))


CATALOG, PAGES = b"<< /Type /Catalog /Pages 2 0 R >>", b" << /Type /Pages /Kids [] /Count 0 >>"
FILE = _file(CATALOG + PAGES, b"1 0 2 %d " % len(CATALOG))


def test_objects_are_those_that_pypdf_finds() -> None:
    lazy, usual = LazyReader(FILE), PdfReader(io.BytesIO(FILE))
    assert repr(lazy.root_object).split("IndirectObject")[0] == "{'/Type': '/Catalog', '/Pages': "
    assert repr(lazy.root_object["/Pages"]) == repr(usual.root_object["/Pages"])


def test_only_what_is_asked_for_is_parsed() -> None:
    reader = LazyReader(_file(CATALOG + b"<< /Broken", b"1 0 2 %d " % len(CATALOG)))
    assert str(reader.root_object["/Type"]) == "/Catalog"


def test_an_object_stream_in_itself_is_refused() -> None:
    with pytest.raises(PdfReadError):
        _ = LazyReader(_file(CATALOG, b"1 0 ", holder=1)).root_object
