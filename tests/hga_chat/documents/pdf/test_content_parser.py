"""Content streams, with values by ISO 32000-2, 7.3 and 7.8.2."""

import pytest

from hga_chat.documents.pdf.content_parser import operations


def _operands(data: bytes) -> list:
    ((operands, operator),) = operations(data + b" Tj")
    assert operator == b"Tj"
    return operands


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"(text)", b"text"),
        (b"(a (b) \\(c)", b"a (b) (c"),
        (b"(a\\\nb\\101\\0)", b"abA\0"),
        (b"(a\r\nb\rc)", b"a\nb\nc"),
        (b"(\\n\\r\\t\\b\\f\\\\\\x)", b"\n\r\t\b\f\\x"),
        (b"<48 65 6C6C6>", b"Hell`"),
        (b"/A#20B", "/A B"),
        (b"-.5", -0.5),
        (b"4.", 4.0),
        (b"true", True),
        (b"null", None),
        (b"[(a) -250 (b)]", [b"a", -250.0, b"b"]),
    ],
)
def test_values(data: bytes, value: object) -> None:
    assert _operands(data) == [value]


def test_operations_follow_each_other() -> None:
    data = b"q % a comment (\n1 0 0 1 5 6 cm/F1 12 Tf[(a)]TJ T* (b)' Q"
    assert list(operations(data)) == [
        ([], b"q"),
        ([1, 0, 0, 1, 5, 6], b"cm"),
        (["/F1", 12], b"Tf"),
        ([[b"a"]], b"TJ"),
        ([], b"T*"),
        ([b"b"], b"'"),
        ([], b"Q"),
    ]


def test_dictionaries_are_parsed_where_they_have_text() -> None:
    data = b"/Span << /MCID 1 /A << /B (>>) >> >> BDC /Span << /ActualText <FEFF0041>>> BDC"
    assert list(operations(data)) == [
        (["/Span", {}], b"BDC"),
        (["/Span", {"/ActualText": "A"}], b"BDC"),
    ]


def test_images_within_the_stream_are_skipped() -> None:
    data = b"q BI /W 2 /H 1 /BPC 8 /CS /G ID \x80 EI \x90(( EI Q (after) Tj"
    assert list(operations(data)) == [([], b"q"), ([], b"BI"), ([], b"Q"), ([b"after"], b"Tj")]


@pytest.mark.parametrize(
    "data", [b"(a", b"<< /A", b"[1 2", b"BI ID \x80", b")]>>}{>", b"((((", b"<<" * 9999]
)
def test_damage_ends_the_stream_without_an_error(data: bytes) -> None:
    list(operations(data))


def test_damaged_numbers_are_taken_as_readers_take_them() -> None:
    assert _operands(b"1.2.3 --4 5-6 +.") == [1.2, -4.0, 5.0]
