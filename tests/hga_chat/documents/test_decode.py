import pytest

from hga_chat.documents.decode import decode_text
from hga_chat.documents.types import UnreadableError


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]
)
def test_encodings(encoding: str) -> None:
    text = "Größe: 12 µm, façade, naïve\n"
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    "data",
    [
        b"\xfe\xff\x00H\x00i",  # UTF-16, big-endian
        b"\xff\xfeH\x00i\x00",
        b"\x00\x00\xfe\xff\x00\x00\x00H\x00\x00\x00i",
        b"\xff\xfe\x00\x00H\x00\x00\x00i\x00\x00\x00",
    ],
)
def test_byte_order_marks(data: bytes) -> None:
    assert decode_text(data) == "Hi"


def test_windows_quotes() -> None:
    assert decode_text(b"\x93quoted\x94 \x96 dash") == "“quoted” – dash"


def test_line_ends_become_unix() -> None:
    assert decode_text(b"a\r\nb\rc\n\r\nd") == "a\nb\nc\n\nd"


def test_one_bad_byte_costs_only_itself() -> None:
    data = "Grüße aus Zürich".encode() + b"\xff"
    assert decode_text(data) == "Grüße aus Zürich\ufffd"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"text\0text", "binary"),
        (b"\xff\xfeH\x00i", "marked as UTF-16"),
        (b"\xef\xbb\xbf\xff\xff", "marked as UTF-8"),
        ("a\0b".encode("utf-16"), "binary"),
        (bytes(range(1, 256)), "unknown text encoding"),
        ("Широкая электрификация".encode("cp1251"), "unknown text encoding"),
    ],
)
def test_what_is_not_text_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode_text(data)
