import io
import struct
import zipfile

import pytest

from hga_chat.documents.types import LoadedFile, UnreadableError
from hga_chat.documents.zipped import members as zip_members
from hga_chat.documents.zipped.members import MAX_ENTRIES, Members
from hga_chat.documents.zipped.reader import load_zipped

CONTAINER = '<container><rootfile full-path="a/b.opf"/>epub</container>'
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def packed(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def book(pages: dict[str, str], navigation: str = "") -> bytes:
    """Return an EPUB of these pages, with the list of an EPUB 3 navigation document."""
    names = [*pages, "nav.xhtml"]
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"'
        f"{' properties=' + repr('nav') if name == 'nav.xhtml' else ''}/>"
        for n, name in enumerate(names)
    )
    spine = "".join(f'<itemref idref="i{n}"/>' for n in range(len(names)))
    return packed(
        {
            "META-INF/container.xml": CONTAINER,
            "a/b.opf": f"<package><title>Book</title>{items}<spine>{spine}</spine></package>",
            "a/nav.xhtml": f"<html><nav><ol>{navigation}</ol></nav></html>",
            **{f"a/{name}": text for name, text in pages.items()},
        }
    )


def titled(data: bytes) -> str:
    return load_zipped("a", data).title


def test_books_and_word_documents_give_their_title():
    assert titled(book({"1.xhtml": "<p>Text.</p>"})) == "Book"
    style = '<w:style w:styleId="T"><w:name w:val="Title"/></w:style>'
    heading = '<w:p><w:pPr><w:pStyle w:val="T"/></w:pPr><w:r><w:t>The Lamp</w:t></w:r></w:p>'
    text = "<w:p><w:r><w:t>Text.</w:t></w:r></w:p>"
    assert titled(word(heading + text, style)) == "The Lamp"
    assert titled(word(text, style)) == ""


def word(body: str, styles: str = "") -> bytes:
    return packed(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f"<w:document {W}><w:body>{body}</w:body></w:document>",
            "word/styles.xml": f"<w:styles {W}>{styles}</w:styles>",
        }
    )


def labels(loaded: LoadedFile) -> list[str]:
    return [section.label for section in loaded.sections]


def texts(loaded: LoadedFile) -> list[str]:
    return [section.text for section in loaded.sections]


def test_a_long_chapter_is_cut_into_parts() -> None:
    pages = {"1.xhtml": "<h1>One</h1>" + "<p>text</p>" * 150}
    loaded = load_zipped("a.epub", book(pages, '<li><a href="1.xhtml">One</a></li>'))
    assert labels(loaded) == ["One", "One, part 2"]
    assert {(s.start_line, s.end_line, s.page) for s in loaded.sections} == {(None, None, None)}


def test_a_document_without_a_contents_entry_continues_the_one_before() -> None:
    pages = {
        "1.xhtml": "<h1>One</h1>a",
        "2.xhtml": "<h2>Within</h2>b",
        "3.xhtml": "<h1>Two: the end</h1>c",
    }
    contents = '<li><a href="1.xhtml">One</a></li><li><a href="3.xhtml">Two</a></li>'
    assert labels(load_zipped("a.epub", book(pages, contents))) == ["One", "One > Within", "Two"]


def test_contents_entries_that_point_nowhere_are_harmless() -> None:
    contents = (
        "<li><span>Lost</span></li><li><a href='http://[bad'>Bad</a></li>"
        "<li><a href='1.xhtml#none'>One</a></li><li><a>  </a></li><li><a href='../x'>Up</a></li>"
    )
    assert labels(load_zipped("a.epub", book({"1.xhtml": "<p>a</p>"}, contents))) == ["One"]


def test_a_book_with_obfuscated_fonts_is_loaded() -> None:
    method = '<x><EncryptionMethod Algorithm="http://www.idpf.org/2008/embedding"/></x>'
    members = {
        "META-INF/container.xml": CONTAINER,
        "META-INF/encryption.xml": method,
        "a/b.opf": '<package><item id="i" href="i.html" media-type="text/html"/>'
        '<spine><itemref idref="i"/></spine></package>',
        "a/i.html": "<p>open</p>",
    }
    assert texts(load_zipped("a.epub", packed(members))) == ["open\n\n"]
    members["META-INF/encryption.xml"] = method.replace("idpf", "other")
    with pytest.raises(UnreadableError, match="encrypted EPUB"):
        load_zipped("a.epub", packed(members))


@pytest.mark.parametrize(
    ("style", "label"),
    [
        ('<w:style w:styleId="S"><w:name w:val="Heading 2"/></w:style>', "Head"),
        ('<w:style w:styleId="S"><w:pPr><w:outlineLvl w:val="3"/></w:pPr></w:style>', "Head"),
        (
            '<w:style w:styleId="S"><w:basedOn w:val="B"/></w:style>'
            '<w:style w:styleId="B"><w:name w:val="heading 1"/></w:style>',
            "Head",
        ),
        ('<w:style w:styleId="S"><w:basedOn w:val="S"/></w:style>', "text"),
        ('<w:style w:styleId="S"><w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>', "text"),
        ('<w:style w:styleId="S"><w:name w:val="heading 12"/></w:style>', "text"),
    ],
)
def test_headings_by_style(style: str, label: str) -> None:
    body = '<w:p><w:pPr><w:pStyle w:val="S"/></w:pPr><w:r><w:t>Head</w:t></w:r></w:p>'
    assert labels(load_zipped("a.docx", word(body, style))) == [label]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<w:p><w:hyperlink><w:r><w:t>a link</w:t></w:r></w:hyperlink></w:p>", "a link"),
        ("<w:p><w:r><w:t>a</w:t><w:br/><w:t>b</w:t><w:noBreakHyphen/></w:r></w:p>", "a\nb-"),
        ("<w:p><w:moveFrom><w:r><w:t>a</w:t></w:r></w:moveFrom><w:r><w:t>b</w:t></w:r></w:p>", "b"),
        (
            "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p><w:tbl><w:tr><w:tc><w:p><w:r>"
            "<w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl></w:tc><w:tc><w:p/></w:tc></w:tr></w:tbl>",
            "a b |",
        ),
    ],
)
def test_text_of_paragraphs_and_tables(body: str, text: str) -> None:
    assert texts(load_zipped("a.docx", word(body)))[0].strip() == text


def test_nesting_beyond_the_limit_is_refused() -> None:
    deep = "<w:sdt>" * 5000 + "</w:sdt>" * 5000
    with pytest.raises(UnreadableError, match=r"damaged: word/document\.xml"):
        load_zipped("a.docx", word(deep))


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(UnreadableError, match="more than 10,000 entries"):
        load_zipped("a.zip", packed({str(n): "" for n in range(MAX_ENTRIES + 1)}))


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(word("<w:p><w:r><w:t>a</w:t></w:r></w:p>"))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + offset] |= 1
    with pytest.raises(UnreadableError, match="encrypted ZIP archive"):
        load_zipped("a.docx", bytes(data))


def test_a_false_size_in_the_directory_is_harmless() -> None:
    data = packed({"a": b" " * 60_000_000})
    lying = data.replace(struct.pack("<L", 60_000_000), struct.pack("<L", 10))
    for archive in (data, lying):
        with pytest.raises(UnreadableError, match=r"unpacks to more than|damaged"):
            Members(archive).read("a")


def test_the_total_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members, "MAX_TOTAL_BYTES", 2_500_000)
    # Each member is within its own limits; together they exceed the total.
    members = Members(packed({str(n): b"text" * 200_000 for n in range(4)}))
    for name in "012":
        members.read(name)
    with pytest.raises(UnreadableError, match=r"3 unpacks to more than 0 MB \(a decomp"):
        members.read("3")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "an empty ZIP archive"),
        ({"ppt/presentation.xml": ""}, "a PowerPoint presentation"),
        ({"META-INF/MANIFEST.MF": ""}, "a Java archive"),
        ({"word/x": ""}, "a ZIP archive; unpack it first"),
        ({"META-INF/container.xml": CONTAINER}, "damaged: a/b.opf is missing"),
        ({"META-INF/container.xml": "<epub/>"}, "damaged EPUB: container.xml names no"),
        ({"[Content_Types].xml": "", "word/x": ""}, "damaged: word/document.xml is missing"),
        (
            {"[Content_Types].xml": "", "word/document.xml": "<document/>"},
            "damaged Word document: it has no body",
        ),
    ],
)
def test_other_archives_are_refused_by_name(members: dict[str, str | bytes], reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        load_zipped("a", packed(members))
