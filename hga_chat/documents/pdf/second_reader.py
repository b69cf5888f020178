"""Reads with PDFium what pypdf cannot: files it refuses, pages it fails on, codes it cannot name.

PDFium has the Adobe character collections for Chinese, Japanese and Korean and reads the encodings
inside font programs.
"""

import ctypes
import math
from typing import Any

from hga_chat.documents.pdf.glyphs import Content, Glyph, angle_of

_UNKNOWN = "\ufffd"


class SecondReader:
    """A document as PDFium reads it; opened when it is first asked."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._document: Any = None
        self._failed = False

    @property
    def count(self) -> int:
        """The number of pages; 0 if PDFium cannot open the file either."""
        document = self._open()
        return len(document) if document is not None else 0

    def page(self, index: int) -> Content | None:
        """Return what a page shows, annotations included; None if PDFium cannot load it."""
        document = self._open()
        if document is None:
            return None
        try:
            return _content(document[index])
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, pypdf's reading stays
            return None

    def labels(self) -> list[str]:
        """Return the pages' labels."""
        document = self._open()
        return [document.get_page_label(n) for n in range(self.count)] if document else []

    def _open(self) -> Any:
        if self._document is None and not self._failed:
            try:
                import pypdfium2

                self._document = pypdfium2.PdfDocument(self._data)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - a damaged or encrypted file
                self._failed = True
        return self._document


def _content(page: Any) -> Content:
    from pypdfium2 import raw

    raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
    text = raw.FPDFText_LoadPage(page)
    content = Content()
    try:
        x, y = ctypes.c_double(), ctypes.c_double()
        box, matrix = raw.FS_RECTF(), raw.FS_MATRIX()
        for at in range(raw.FPDFText_CountChars(text)):
            if raw.FPDFText_IsGenerated(text, at) == 1:
                continue
            code = raw.FPDFText_GetUnicode(text, at)
            raw.FPDFText_GetCharOrigin(text, at, x, y)
            raw.FPDFText_GetLooseCharBox(text, at, box)
            raw.FPDFText_GetMatrix(text, at, matrix)
            size = abs(raw.FPDFText_GetFontSize(text, at)) * math.hypot(matrix.c, matrix.d)
            named = 31 < code < 0x110000 and not 0xD800 <= code < 0xE000 and code not in _NOT_TEXT
            shown = chr(code) if named else _UNKNOWN
            if content.glyphs and (x.value, y.value) == (
                content.glyphs[-1].x,
                content.glyphs[-1].y,
            ):
                content.glyphs[-1].text += shown  # the letters of a ligature
                continue
            dx, dy = matrix.a, matrix.b
            length = math.hypot(dx, dy) or 1.0
            angle = angle_of(dx, dy)
            wide = box.right - box.left if angle % 180 == 0 else box.top - box.bottom
            to = x.value + dx / length * wide, y.value + dy / length * wide
            content.glyphs.append(
                Glyph(shown, x.value, y.value, *to, size, angle, "", 0, 0.0, named)
            )
    finally:
        raw.FPDFText_ClosePage(text)
    return content


_NOT_TEXT = frozenset((0xFFFD, 0xFFFE, 0xFFFF))
