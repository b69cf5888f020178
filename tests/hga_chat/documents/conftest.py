import io
import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from hga_chat.documents.sandbox.processes import ending_children


class ByteTokenizer:
    """Tokens of up to four characters; a character beyond ASCII is one token per byte."""

    def __init__(self) -> None:
        self._ids: dict[bytes, int] = {}
        self._pieces: list[bytes] = []

    def encode(self, text: str) -> list[int]:
        return self.encode_with_offsets(text)[0]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for match in re.finditer(r"\s{1,3}|[!-~]{1,4}|.", text, re.DOTALL):
            encoded = match[0].encode("utf-8", "surrogatepass")
            split = not match[0].isascii()
            for piece in [bytes([b]) for b in encoded] if split else [encoded]:
                if piece not in self._ids:
                    self._ids[piece] = len(self._pieces)
                    self._pieces.append(piece)
                ids.append(self._ids[piece])
                offsets.append(match.span())
        return ids, offsets

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(ByteTokenizer().encode(text)) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._pieces[i] for i in ids).decode("utf-8", "replace")


@pytest.fixture(scope="session", autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """End the parsers that tests of single formats start, which nothing else ends."""
    with ending_children():
        yield


@pytest.fixture(scope="session")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


def build_pdf(pages: Sequence[str | None], prepare: Callable[[PdfWriter], None] | None = None):
    """Return a PDF with the lines of each page; None is a page with nothing but a grey box."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(612, 792)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
                NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        if text is None:
            content = b"0.5 g 72 72 400 600 re f"
        else:
            lines = [b"(" + line.encode("cp1252") + b") Tj T*" for line in text.split("\n")]
            content = b"BT /F1 12 Tf 14 TL 72 720 Td " + b" ".join(lines) + b" ET"
        stream = DecodedStreamObject()
        stream.set_data(content)
        page[NameObject("/Contents")] = writer._add_object(stream)
    if prepare is not None:
        prepare(writer)
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


@pytest.fixture
def make_pdf():
    return build_pdf
