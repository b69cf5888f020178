from collections.abc import Mapping

import pytest

from hga_chat.documents.pdf.worker import extract

HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


def stream(data: bytes, entries: bytes = b"") -> bytes:
    """Return a stream object."""
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(data), entries, data)


def pdf_of(
    *contents: bytes,
    fonts: Mapping[str, bytes] | None = None,
    objects: Mapping[int, bytes] | None = None,
    page: bytes = b"",
    catalog: bytes = b"",
    resources: bytes = b"",
) -> bytes:
    """Return a PDF with a page for each content stream.

    Fonts are named F1 (Helvetica) and as given; ``objects`` are numbered from 20; ``page``,
    ``catalog`` and ``resources`` are further entries of these dictionaries.
    """
    all_fonts = {"F1": HELVETICA} | dict(fonts or {})
    names = b" ".join(b"/%b %b" % (name.encode(), font) for name, font in all_fonts.items())
    first = 100
    kids = b" ".join(b"%d 0 R" % (first + 2 * n) for n in range(len(contents)))
    parts = {
        1: b"<< /Type /Catalog /Pages 2 0 R %b >>" % catalog,
        2: b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(contents)),
        3: b"<< /Font << %b >> %b >>" % (names, resources),
        **(objects or {}),
    }
    for n, content in enumerate(contents):
        parts[first + 2 * n] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources 3 0 R "
            b"/Contents %d 0 R %b >>" % (first + 2 * n + 1, page)
        )
        parts[first + 2 * n + 1] = stream(content)
    body, places = b"%PDF-1.7\n", {}
    for number, part in sorted(parts.items()):
        places[number] = len(body)
        body += b"%d 0 obj\n%b\nendobj\n" % (number, part)
    table = b"".join(b"%d 1\n%010d 00000 n \n" % entry for entry in sorted(places.items()))
    trailer = b"trailer << /Size %d /Root 1 0 R >>" % (max(parts) + 1)
    start = b"\nstartxref\n%d\n%%%%EOF" % len(body)
    return body + b"xref\n0 1\n0000000000 65535 f \n" + table + trailer + start


def texts_of(data: bytes) -> list[str]:
    """Return the text of each page."""
    answer = extract(data)
    assert "error" not in answer, answer
    return [page["text"] for page in answer["pages"]]


@pytest.fixture
def text_of():
    """A function from the arguments of ``pdf_of`` to the text of the only page."""

    def text(*contents: bytes, **entries) -> str:
        (shown,) = texts_of(pdf_of(*contents, **entries))
        return shown

    return text
