"""Numbers of lists and headings as Word shows them."""

import io
import zipfile

import pytest
from lxml import etree

from hga_chat.documents.types import LoadedFile
from hga_chat.documents.zipped.docx_numbering import Numbers
from hga_chat.documents.zipped.reader import load_zipped

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def load(**parts: str) -> LoadedFile:
    """Load a Word document made of these parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        for name, content in parts.items():
            archive.writestr(f"word/{name}.xml", content)
    return load_zipped("a.docx", buffer.getvalue())


def document(body: str) -> str:
    return f"<w:document {W}><w:body>{body}</w:body></w:document>"


def level(number: int, form: str, shown: str, start: int = 1) -> str:
    return (
        f'<w:lvl w:ilvl="{number}"><w:start w:val="{start}"/><w:numFmt w:val="{form}"/>'
        f'<w:lvlText w:val="{shown}"/></w:lvl>'
    )


OUTLINE = level(0, "decimal", "%1.") + level(1, "decimal", "%1.%2") + level(2, "lowerLetter", "%3)")
WINGDINGS = level(0, "bullet", chr(0xF06F)).replace(
    "</w:lvl>", '<w:rPr><w:rFonts w:ascii="Wingdings"/></w:rPr></w:lvl>'
)
DEFINITIONS = (
    f'<w:abstractNum w:abstractNumId="5">{OUTLINE}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="6">{level(0, "bullet", chr(0xF0B7))}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="7">{level(0, "upperRoman", "Part %1:", 3)}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="8">{level(0, "bullet", "☒")}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="9">{WINGDINGS}</w:abstractNum>'
    '<w:num w:numId="9"><w:abstractNumId w:val="8"/></w:num>'
    '<w:num w:numId="10"><w:abstractNumId w:val="9"/></w:num>'
    '<w:num w:numId="1"><w:abstractNumId w:val="5"/></w:num>'
    '<w:num w:numId="2"><w:abstractNumId w:val="6"/></w:num>'
    '<w:num w:numId="3"><w:abstractNumId w:val="7"/></w:num>'
    '<w:num w:numId="4"><w:abstractNumId w:val="5"/>'
    '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/></w:lvlOverride></w:num>'
    '<w:num w:numId="8"><w:abstractNumId w:val="5"/></w:num>'
)
NUMBERING = f"<w:numbering {W}>{DEFINITIONS}</w:numbering>"


@pytest.mark.parametrize(
    ("paragraphs", "shown"),
    [
        ([("1", 0)] * 3, ["1.", "2.", "3."]),
        ([("1", 0), ("1", 1), ("1", 1), ("1", 0), ("1", 1)], ["1.", "1.1", "1.2", "2.", "2.1"]),
        ([("1", 0), ("1", 1), ("1", 2), ("1", 2)], ["1.", "1.1", "a)", "b)"]),
        ([("1", 1)], ["1.1"]),  # the level above was never counted
        ([("2", 0)] * 2, ["-", "-"]),
        ([("9", 0), ("10", 0)], ["☒", "□"]),  # a state, in a font or not
        ([("3", 0)] * 2, ["Part III:", "Part IV:"]),
        ([("1", 0), ("1", 0), ("4", 0), ("4", 0)], ["1.", "2.", "1.", "2."]),  # restarted
        ([("1", 0), ("8", 0), ("1", 0)], ["1.", "2.", "3."]),  # two names of one list
        ([("0", 0), ("99", 0), ("1", 7)], ["", "-", "-"]),
    ],
)
def test_paragraphs_are_numbered_as_in_word(
    paragraphs: list[tuple[str, int]], shown: list[str]
) -> None:
    numbers = Numbers(etree.fromstring(NUMBERING))
    assert [numbers.next(*paragraph) for paragraph in paragraphs] == shown


@pytest.mark.parametrize(
    ("form", "start", "shown"),
    [
        ("lowerLetter", 26, ["z", "aa", "bb"]),
        ("upperLetter", 2, ["B", "C", "D"]),
        ("lowerRoman", 1998, ["mcmxcviii", "mcmxcix", "mm"]),
        ("decimalZero", 9, ["09", "10", "11"]),
        ("cardinalText", 1, ["1", "2", "3"]),
        ("none", 1, ["", "", ""]),
    ],
)
def test_number_formats(form: str, start: int, shown: list[str]) -> None:
    definition = (
        f'<w:numbering {W}><w:abstractNum w:abstractNumId="0">{level(0, form, "%1", start)}'
        '</w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>'
    )
    numbers = Numbers(etree.fromstring(definition))
    assert [numbers.next("1", 0) for _ in shown] == shown


def test_numbers_appear_in_headings_and_lists() -> None:
    styles = (
        '<w:style w:styleId="H"><w:name w:val="heading 1"/><w:pPr><w:numPr><w:numId w:val="3"/>'
        '</w:numPr></w:pPr></w:style><w:style w:styleId="L"><w:basedOn w:val="B"/></w:style>'
        '<w:style w:styleId="B"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>'
    )

    def paragraph(text: str, properties: str) -> str:
        return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"

    body = (
        paragraph("Harbour", '<w:pStyle w:val="H"/>')
        + paragraph("Moor", '<w:pStyle w:val="L"/>')
        + paragraph("Bow line", '<w:pStyle w:val="L"/><w:numPr><w:ilvl w:val="1"/></w:numPr>')
        + paragraph("", '<w:pStyle w:val="L"/>')
        + paragraph("Rest", '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>')
        + paragraph("Done", '<w:pStyle w:val="L"/><w:numPr><w:numId w:val="0"/></w:numPr>')
    )
    loaded = load(
        document=document(body), styles=f"<w:styles {W}>{styles}</w:styles>", numbering=NUMBERING
    )
    (section,) = loaded.sections
    assert section.label == "Part III: Harbour"
    assert section.text.split("\n") == [
        "# Part III: Harbour",
        "",
        "1. Moor",
        "  1.1 Bow line",
        "3. Rest",
        "",
        "Done",
        "",
        "",
    ]


def test_damaged_numbering_is_noted() -> None:
    body = (
        '<w:p><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr><w:r><w:t>a</w:t></w:r></w:p>'
    )
    loaded = load(document=document(body), numbering="<w:numbering")
    assert loaded.sections[0].text.strip() == "- a"
    assert [note.partition(":")[0] for note in loaded.notes] == ["list numbers are missing"]
