import io
import time
from collections.abc import Callable

from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NullObject,
    NumberObject,
    TextStringObject,
)

from hga_chat.documents.pdf.lines import Line, Piece
from hga_chat.documents.pdf.outline import Heading, extract_headings, headings_of_pages


def _reader(pages: int, prepare: Callable[[PdfWriter], None]) -> PdfReader:
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(100, 100)
    prepare(writer)
    buffer = io.BytesIO()
    writer.write(buffer)
    return PdfReader(buffer)


def _chain(writer: PdfWriter, entries: list[DictionaryObject], *, loop: bool = False) -> None:
    """Make ``entries`` the outline, in this order."""
    references = [writer._add_object(entry) for entry in entries]
    for entry, following in zip(entries, references[1:], strict=False):
        entry[NameObject("/Next")] = following
    if loop:
        entries[-1][NameObject("/Next")] = references[0]
        entries[-1][NameObject("/First")] = references[0]
    outlines = DictionaryObject({NameObject("/First"): references[0]})
    writer.root_object[NameObject("/Outlines")] = writer._add_object(outlines)


def _entry(title: str, dest: object) -> DictionaryObject:
    return DictionaryObject(
        {NameObject("/Title"): TextStringObject(title), NameObject("/Dest"): dest}
    )


def _to(writer: PdfWriter, page: int, *how: object) -> ArrayObject:
    return ArrayObject([writer.pages[page].indirect_reference, *how])


def test_destinations_of_every_kind() -> None:
    def prepare(writer: PdfWriter) -> None:
        writer.add_named_destination("named", 2)
        xyz = _to(writer, 0, NameObject("/XYZ"), NullObject(), FloatObject(80.5), NullObject())
        fit_h = _to(writer, 1, NameObject("/FitH"), NumberObject(70))
        fit_r = _to(writer, 3, NameObject("/FitR"), *map(NumberObject, (1, 2, 3, 60)))
        action = DictionaryObject(
            {NameObject("/S"): NameObject("/GoTo"), NameObject("/D"): _to(writer, 4)}
        )
        by_action = DictionaryObject(
            {NameObject("/Title"): TextStringObject("by action"), NameObject("/A"): action}
        )
        by_number = ArrayObject([NumberObject(5), NameObject("/Fit")])
        _chain(
            writer,
            [
                _entry("xyz", xyz),
                _entry("fit h", fit_h),
                _entry("by name", TextStringObject("named")),
                _entry("fit r", fit_r),
                by_action,
                _entry("by number", by_number),
            ],
        )

    found = extract_headings(_reader(6, prepare))
    assert found == [
        Heading("xyz", 0, 80.5),
        Heading("fit h", 1, 70.0),
        Heading("by name", 2, 100.0),
        Heading("fit r", 3, 60.0),
        Heading("by action", 4, None),
        Heading("by number", 5, None),
    ]


def test_damaged_entries_are_left_out() -> None:
    def prepare(writer: PdfWriter) -> None:
        web = DictionaryObject(
            {NameObject("/S"): NameObject("/URI"), NameObject("/URI"): TextStringObject("x")}
        )
        elsewhere = DictionaryObject(
            {NameObject("/Title"): TextStringObject("web"), NameObject("/A"): web}
        )
        _chain(
            writer,
            [
                _entry("no such page", ArrayObject([NumberObject(7), NameObject("/Fit")])),
                _entry("no such name", TextStringObject("nobody")),
                _entry("no destination", NumberObject(3)),
                _entry("empty", ArrayObject()),
                elsewhere,
                DictionaryObject({NameObject("/Title"): TextStringObject("nothing")}),
                _entry(" \n ", _to(writer, 0)),
                _entry("  the one\nthat is\x1b \u00adwhole " + "x" * 200, _to(writer, 0)),
            ],
        )

    (heading,) = extract_headings(_reader(1, prepare))
    assert heading.title.startswith("the one that is whole xxx")
    assert heading.title.endswith("x…")
    assert len(heading.title) == 120


def test_loops_and_huge_outlines_end() -> None:
    def loop(writer: PdfWriter) -> None:
        _chain(writer, [_entry(str(n), _to(writer, 0)) for n in range(3)], loop=True)

    def huge(writer: PdfWriter) -> None:
        _chain(writer, [_entry(str(n), _to(writer, 0)) for n in range(11_000)])

    assert [h.title for h in extract_headings(_reader(1, loop))] == ["0", "1", "2"]
    reader = _reader(1, huge)
    started = time.monotonic()
    assert len(extract_headings(reader)) == 10_000
    assert time.monotonic() - started < 20


def test_a_file_without_an_outline_has_no_headings() -> None:
    assert extract_headings(_reader(1, lambda writer: None)) == []

    def damage(writer: PdfWriter) -> None:
        writer.root_object[NameObject("/Outlines")] = NumberObject(1)

    assert extract_headings(_reader(1, damage)) == []


def _line(text: str, baseline: float) -> Line:
    return Line((Piece(text, 0, 10, baseline, 10, ""),))


def test_the_heading_in_force_names_the_page() -> None:
    body = [_line("some text", 90), _line("Middle", 50), _line("more text", 40)]
    pages = [
        [_line("before all", 90)],
        [_line("before the first", 90), _line("First", 50)],
        body,
        body,
        [_line("Chapter", 90), _line("2.1", 75), _line("Section", 75), _line("text", 60)],
        [],
    ]
    headings = [
        Heading("First", 1, 60.0),
        Heading("Middle", 2, 60.0),
        Heading("not printed", 3, 95.0),
        Heading("also not printed", 3, 45.0),
        Heading("Chapter", 4, 99.0),
        Heading("2.1 Section", 4, 83.0),
        Heading("further down", 4, 50.0),
    ]
    assert headings_of_pages(headings, pages) == [
        None,
        "First",
        "First",
        "not printed",
        "2.1 Section",
        "further down",
    ]
