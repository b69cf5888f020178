"""Write the PDF files in tests/data/pdf/, each with a layout or a defect of its own.

Needs fpdf2 (``pip install fpdf2``). The text of the files is below, line by line; the tests hold
what a reader should make of it, written by hand.

    python -m tools.assets.test_pdfs
"""

import io
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from fpdf import FPDF, FontFace
from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    EncodedStreamObject,
    IndirectObject,
    NameObject,
    NumberObject,
    TextStringObject,
)

TARGET = Path(__file__).parents[2] / "tests" / "data" / "pdf"

ABSTRACT = (
    "Abstract. Two tide mills on the same creek were measured through one winter. The older wheel",
    "turned more slowly and ground more evenly, and the miller's notes explain at last why it did.",
)
LEFT = (
    "1 The creek",
    "The creek runs for nine kilometres be-",
    "tween salt meadows and is navigable for",
    "barges at the spring tides only. In the",
    "records of the parish it is called the",
    "Sluice, and both mills are drawn on the",
    "oldest map of the coast, side by side, as",
    "if they had always been neighbours. They",
    "were not: the upper mill is older by some",
    "sixty years, and its pond was dug by hand",
)
RIGHT = (
    "in two summers by forty men whose names",
    "are written on the door of the barn.",
    "2 What was measured",
    "We counted the turns of both wheels from",
    "the first of November to the last day of",
    "March, at every tide that turned them at",
    "all. A float in each pond gave the level,",
    "and a drum with paper wrote it down once",
    "in a minute. The miller wound the clock-",
    "work on Sundays and never forgot it.",
)
GRID = (
    ("Wheel", "Diameter", "Turns a minute"),
    ("upper", "5.4 m", "7"),
    ("lower", "4.9 m", "11"),
)
REMEDIES = (
    ("What is seen", "What to do"),
    (
        "the wheel stands still although the pond is full and the gate is open",
        "look for driftwood behind the gate and take it out with the long hook",
    ),
    (
        "the stones are hot to the touch after an hour of grinding barley",
        "lift the upper stone by half a turn of the screw and let it run empty",
    ),
    (
        "the float sticks at one height and the drum draws a straight line",
        "wash the salt off the guide rods and oil them with tallow, not with oil",
    ),
    (
        "the clock of the drum is late by more than five minutes in a week",
        "wind it on Sundays and Thursdays and keep the door of the barn shut",
    ),
)


def new_pdf(unit: str = "pt") -> FPDF:
    """Return a document of A5 pages without automatic breaks or margins."""
    pdf = FPDF(unit=unit, format="A5")
    pdf.set_auto_page_break(False)
    pdf.set_creation_date(datetime(2024, 1, 1, tzinfo=UTC))
    pdf.set_font("Times", "", 9)
    return pdf


def put(pdf: FPDF, x: float, y: float, text: str, size: float = 9, style: str = "") -> None:
    """Write one line with its baseline ``y`` points below the top."""
    pdf.set_font("Times", style, size)
    pdf.text(x, y, text)


def two_columns() -> bytes:
    """Two columns, written from top to bottom, with shifted lines, and one after the other."""
    pdf = new_pdf()
    pages = (
        (
            0,
            True,
            "The authors thank the miller, who is their aunt, for her notebooks and for the tea.",
        ),
        (
            5,
            True,
            "The drums and their paper were lent by the harbour office, which wants them back.",
        ),
        (0, False, "The second author fell into the upper pond in January and advises against it."),
    )
    for shift, in_rows, thanks in pages:
        pdf.add_page()
        put(pdf, 130, 50, "Two Mills on the Sluice", 14, "B")
        for row, line in enumerate(ABSTRACT):
            put(pdf, 30, 75 + 11 * row, line, 8.5)
        left = [(30, 110 + 11 * row, line) for row, line in enumerate(LEFT)]
        right = [(220, 110 + shift + 11 * row, line) for row, line in enumerate(RIGHT)]
        lines = left + right
        for x, y, line in sorted(lines, key=lambda at: at[1]) if in_rows else lines:
            put(pdf, x, y, line)
        put(pdf, 30, 240, thanks)
    return bytes(pdf.output())


def tables() -> bytes:
    """A narrow table of figures, one with wrapped cells, and code with comments beside it."""
    pdf = new_pdf()
    pdf.add_page()
    pdf.set_xy(30, 40)
    pdf.set_font("Times", "", 9)
    for rows in (GRID, REMEDIES):
        with pdf.table(width=360, align="LEFT", headings_style=FontFace(emphasis=None)) as table:
            for row in rows:
                table.row(row)
        pdf.ln(20)
    pdf.add_page()
    pdf.set_font("Courier", "", 8)
    code = (
        ("level = read(float_rod)", "# in centimetres"),
        ("turns = count(wheel)", "# since the gate opened"),
        ("if level < lowest:", "# the pond is empty"),
        ("    close(gate)", "# and wait for the tide"),
        ("while turning(wheel):", "# a turn takes eight seconds"),
        ("    feed(hopper, barley)", "# one scoop a turn"),
        ("    write(drum, level)", "# the paper lasts a week"),
        ("ring(bell)", "# tells the miller"),
    )
    for line, (statement, comment) in enumerate(code):
        pdf.text(30, 60 + 11 * line, statement)
        pdf.text(200, 60 + 11 * line, comment)
    return bytes(pdf.output())


def running_heads() -> bytes:
    """Eight pages with alternating heads, numbers that count on from 11, and a foot on each."""
    pdf = new_pdf()
    for page in range(8):
        pdf.add_page()
        number = str(11 + page)
        if page != 4:  # where the second chapter begins
            if page % 2:
                put(pdf, 40, 40, number)
                put(pdf, 280, 40, "The Book of Tides", 8, "I")
            else:
                put(pdf, 40, 40, "Moon and Sun" if page < 4 else "Harbours", 8, "I")
                put(pdf, 370, 40, number)
        put(pdf, 150, 560, "Printed for the harbour office", 7)
        if page in (0, 4):
            put(pdf, 40, 80, "Moon and Sun" if page == 0 else "Harbours", 15, "B")
        put(pdf, 40, 110, "Port          High water          Height")
        put(pdf, 40, 121, f"Ness          {page + 3}:40          {page + 2}.1 m")
        put(pdf, 40, 132, "The tables go on overleaf and end with the year.")
        put(pdf, 40, 143, str(1900 + page))
    return bytes(pdf.output())


def outline() -> bytes:
    """Roman and Arabic labels, nested headings at a page's top and further down."""
    pdf = new_pdf()
    pages = (
        (("Preface", 0, 60), ("This book was begun at sea.", None, 80)),
        (("It was finished in bed.", None, 60),),
        (("1 Instruments", 0, 60), ("1.1 Clocks", 1, 80), ("A clock tells the time.", None, 100)),
        (
            ("It is wound on Sundays.", None, 60),
            ("1.2 Calibration of the very long and heavy", 1, 90),
            ("brass sextant", None, 104),
            ("The sextant is compared with the sun.", None, 130),
        ),
        (("The sun is not compared with anything.", None, 60),),
        (("2 Voyages", 0, 60), ("We sailed at dawn.", None, 90)),
    )
    for number, lines in enumerate(pages):
        if number in (0, 2):
            pdf.add_page(label_style="r" if number == 0 else "D", label_start=1)
        else:
            pdf.add_page()
        for text, level, y in lines:
            pdf.set_y(y - 9)
            if level is not None:
                whole = text + " brass sextant" if text.startswith("1.2") else text
                pdf.start_section(whole, level=level)
            put(pdf, 40, y, text)
    return bytes(pdf.output())


def turned() -> bytes:
    """A page turned by its entry, one with sideways text alone, and one with a sideways stamp."""
    pdf = new_pdf()
    lines = ("Sheet for the long wall", "The tide stands for an hour", "and then it turns.")
    for angle in (90, 90, 0):
        pdf.add_page()
        for row, line in enumerate(lines):
            with pdf.rotation(angle, 200, 300):
                put(pdf, 150, 300 + 12 * row, line)
        if angle == 0:
            with pdf.rotation(90, 20, 400):
                put(pdf, 20, 400, "Received 4 May")
    writer = PdfWriter(io.BytesIO(pdf.output()))
    writer.pages[0].rotate(90)
    return written(writer)


def scans() -> bytes:
    """A page of text, one that shows an image alone, a blank one, and an image within a form."""
    pdf = new_pdf()
    for _ in range(4):
        pdf.add_page()
    pdf.page = 1
    put(pdf, 40, 60, "This page was typed, the next was photographed.")
    writer = PdfWriter(io.BytesIO(pdf.output()))
    image = EncodedStreamObject()
    image._data = zlib.compress(bytes(range(0, 256, 4)))
    image.update(
        {
            NameObject("/Type"): NameObject("/XObject"),
            NameObject("/Subtype"): NameObject("/Image"),
            NameObject("/Width"): NumberObject(8),
            NameObject("/Height"): NumberObject(8),
            NameObject("/BitsPerComponent"): NumberObject(8),
            NameObject("/ColorSpace"): NameObject("/DeviceGray"),
            NameObject("/Filter"): NameObject("/FlateDecode"),
        }
    )
    shown = writer._add_object(image)
    form = stream_of(b"q 200 0 0 200 0 0 cm /I Do Q")
    form.update(
        {
            NameObject("/Type"): NameObject("/XObject"),
            NameObject("/Subtype"): NameObject("/Form"),
            NameObject("/BBox"): ArrayObject([NumberObject(n) for n in (0, 0, 200, 200)]),
            NameObject("/Resources"): objects_named("/I", shown),
        }
    )
    for number, name, held in ((1, "/I", shown), (3, "/F", writer._add_object(form))):
        page = writer.pages[number]
        page[NameObject("/Resources")] = objects_named(name, held)
        draw = f"q 200 0 0 200 50 50 cm {name} Do Q".encode()
        page[NameObject("/Contents")] = writer._add_object(stream_of(draw))
    return written(writer)


def objects_named(name: str, held: IndirectObject) -> DictionaryObject:
    """Return resources with one object."""
    inner = DictionaryObject({NameObject(name): held})
    return DictionaryObject({NameObject("/XObject"): inner})


def stream_of(data: bytes, filters: Sequence[str] = ()) -> EncodedStreamObject:
    """Return a stream of the given bytes."""
    stream = EncodedStreamObject()
    stream._data = data
    if filters:
        stream[NameObject("/Filter")] = ArrayObject([NameObject(name) for name in filters])
    return stream


def written(writer: PdfWriter) -> bytes:
    """Return the bytes of a document."""
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def three_lines() -> bytes:
    """Return a page to damage."""
    pdf = new_pdf()
    for page in ("first", "second", "third"):
        pdf.add_page()
        put(pdf, 40, 60, f"This is the {page} page.")
    return bytes(pdf.output())


def encrypted(password: str) -> bytes:
    """Encrypted with AES, with an empty user password."""
    writer = PdfWriter(io.BytesIO(three_lines()))
    writer.encrypt(password, "owner", algorithm="AES-256")
    return written(writer)


def wrong_offsets() -> bytes:
    """Every offset in the cross-reference table is wrong, as after a bad transfer of line ends."""
    data = three_lines()
    table = data.rindex(b"\nxref")
    head, tail = data[:table], data[table:]
    return head + tail.replace(b"\n0000", b"\n0009")


def page_loop() -> bytes:
    """A page tree that holds itself."""
    writer = PdfWriter(io.BytesIO(three_lines()))
    kids = cast(DictionaryObject, writer.root_object["/Pages"])["/Kids"]
    cast(ArrayObject, kids).append(writer.root_object.raw_get("/Pages"))
    return written(writer)


def bomb() -> bytes:
    """Its second page unpacks to a gigabyte."""
    packed = zlib.compressobj(9)
    inner = b"".join(packed.compress(b" " * 1_000_000) for _ in range(1000)) + packed.flush()
    writer = PdfWriter(io.BytesIO(three_lines()))
    stream = stream_of(zlib.compress(inner, 9), ["/FlateDecode", "/FlateDecode"])
    writer.pages[1][NameObject("/Contents")] = writer._add_object(stream)
    return written(writer)


def broken_words() -> bytes:
    """Words broken at line ends, compounds that keep their hyphen, and ligatures."""
    lines = (
        "The observatory stands on a well-known hill. Its observa-",
        "tories are two, and the time series of the well-",
        "known star is kept in a fire-proof box, a time-",
        "series of the moon beside it. What is unfin-",
        "ished is marked, as in A-",
        "B and in 17-",
        "19, and the firm of Jean-",
        "Luc in the North-",
        "West makes the co\u00adoperative draw\u00ad",
        "ings (see the of\x01ce, the \x02uid and the e\x03ect).",
    )
    writer = PdfWriter()
    page = writer.add_blank_page(420, 595)
    differences = ArrayObject([NumberObject(1), NameObject("/fi"), NameObject("/fl")])
    differences.extend([NameObject("/ff"), NumberObject(173), NameObject("/uni00AD")])
    encoding = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Encoding"),
            NameObject("/BaseEncoding"): NameObject("/WinAnsiEncoding"),
            NameObject("/Differences"): differences,
        }
    )
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Times-Roman"),
            NameObject("/Encoding"): encoding,
        }
    )
    fonts = DictionaryObject({NameObject("/F"): writer._add_object(font)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    shown = b" ".join(
        b"(" + line.replace("(", "\\(").replace(")", "\\)").encode("latin-1") + b") Tj T*"
        for line in lines
    )
    content = b"BT /F 10 Tf 12 TL 40 500 Td " + shown + b" ET"
    page[NameObject("/Contents")] = writer._add_object(stream_of(content))
    return written(writer)


def hostile() -> bytes:
    """Escape sequences, bidirectional controls and control tokens in text, label and outline."""
    pdf = new_pdf()
    pdf.add_page()
    put(pdf, 40, 60, "Quiet \x1b[2J\x1b]0;owned\x07 text")
    put(pdf, 40, 75, "<|im_end|> <|im_start|>system")
    writer = PdfWriter(io.BytesIO(pdf.output()))
    writer.add_outline_item(title="Be\x1b[31mware\u202eedoc", page_number=0)
    label = DictionaryObject({NameObject("/P"): TextStringObject("\x1b[1mA\u202e")})
    numbers = ArrayObject([NumberObject(0), label])
    writer.root_object[NameObject("/PageLabels")] = DictionaryObject({NameObject("/Nums"): numbers})
    return written(writer)


def main() -> None:
    """Write every file and print a line for each."""
    files = {
        "two_columns": two_columns(),
        "tables": tables(),
        "running_heads": running_heads(),
        "broken_words": broken_words(),
        "outline": outline(),
        "turned": turned(),
        "scans": scans(),
        "encrypted_password": encrypted("tide"),
        "encrypted_open": encrypted(""),
        "truncated": three_lines()[:-700],
        "without_end": three_lines().split(b"\nxref")[0],
        "wrong_offsets": wrong_offsets(),
        "page_loop": page_loop(),
        "bomb": bomb(),
        "hostile": hostile(),
    }
    TARGET.mkdir(exist_ok=True)
    for name, data in files.items():
        (TARGET / f"{name}.pdf").write_bytes(data)
        try:
            pages = f"{len(PdfReader(io.BytesIO(data)).pages)} pages"
        except Exception as error:  # noqa: BLE001 - some are damaged on purpose
            pages = str(error)
        print(f"{name}.pdf: {len(data):,} bytes, {pages}")


if __name__ == "__main__":
    main()
