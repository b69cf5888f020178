"""Books that readers open, from bug reports of other programs, and their kin."""

import io
import zipfile

import pytest

from hga_chat.documents.types import LoadedFile, UnreadableError
from hga_chat.documents.zipped.reader import load_zipped

CONTAINER = (
    '<container><rootfiles><rootfile full-path="OEBPS/content.opf" '
    'media-type="application/oebps-package+xml"/></rootfiles></container>'
)
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'


def package(manifest: str, spine: str, title: str = "Book") -> str:
    return (
        f'{DECLARATION}<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
        f"<manifest>{manifest}</manifest><spine>{spine}</spine></package>"
    )


def item(name: str, href: str, media_type: str = "application/xhtml+xml", more: str = "") -> str:
    return f'<item id="{name}" href="{href}" media-type="{media_type}" {more}/>'


def chapter(number: int) -> str:
    return (
        f'{DECLARATION}<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
        f"<body><h1>Chapter {number}</h1><p>code 471{number}</p></body></html>"
    )


def packed(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def book(opf: str | bytes, **pages: str | bytes) -> bytes:
    return packed(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OEBPS/content.opf": opf,
            **{f"OEBPS/{name.replace('__', '.')}": page for name, page in pages.items()},
        }
    )


def codes(loaded: LoadedFile) -> list[str]:
    words = "".join(section.text for section in loaded.sections).split()
    return [word for word in words if word.startswith("471")]


def load(data: bytes) -> LoadedFile:
    return load_zipped("a.epub", data)


ONE = item("c1", "c1.xhtml")
SPINE = '<itemref idref="c1"/>'


@pytest.mark.parametrize(
    ("media_type", "href"),
    [
        # xberg-io/xberg#1486, #1502
        ("application/xhtml+xml; charset=utf-8", "c2.xhtml"),
        ("APPLICATION/XHTML+XML", "c2.xhtml"),
        ("", "c2.xhtml"),
        ("text/html", "c2.html"),
        ("text/xml", "c2.xml"),
        ("application/xml", "c2.xml"),
        ("application/xhtml", "c2"),
        ("application/octet-stream", "c2.xhtml"),
        ("text/x-oeb1-document", "c2.html"),
    ],
)
def test_media_types(media_type: str, href: str) -> None:
    opf = package(ONE + item("c2", href, media_type), SPINE + '<itemref idref="c2"/>')
    loaded = load(book(opf, c1__xhtml=chapter(1), **{href.replace(".", "__"): chapter(2)}))
    assert codes(loaded) == ["4711", "4712"]
    assert not loaded.notes


def test_pages_of_svg() -> None:
    # koreader/koreader#11268
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><text>Plate code 4712</text></svg>'
    opf = package(ONE + item("s", "p.svg", "image/svg+xml"), SPINE + '<itemref idref="s"/>')
    assert codes(load(book(opf, c1__xhtml=chapter(1), p__svg=svg))) == ["4711", "4712"]


def test_what_is_no_text_is_said_or_replaced() -> None:
    opf = package(
        ONE
        + item("p", "p.jpg", "image/jpeg")
        + item("q", "q.pdf", "application/pdf", 'fallback="r"')
        + item("r", "r.bin", "x/y", 'fallback="c2"')
        + item("c2", "c2.xhtml")
        + item("c3", "c3.xhtml"),
        SPINE + '<itemref idref="p"/><itemref idref="q"/>',
    )
    pages = {f"c{n}__xhtml": chapter(n) for n in (1, 2, 3)}
    loaded = load(book(opf, p__jpg=b"\xff\xd8", q__pdf=b"%PDF-", r__bin=b"x", **pages))
    assert codes(loaded) == ["4711", "4712"]
    assert loaded.notes == ("document 2 of 3: image/jpeg is not text",)
    assert loaded.left_out == ("documents outside the reading order (1)",)


@pytest.mark.parametrize(
    "opf",
    [
        # readest/readest#4640, readest/foliate-js#26
        package(ONE, SPINE, title="Salt & Pepper"),
        "\n" + package(ONE, SPINE),
        ("\ufeff\n" + package(ONE, SPINE)).encode(),
        package(ONE, SPINE, title="Caf&eacute;&nbsp;&copy; A&B&C;"),
        package(ONE, SPINE).replace("UTF-8", "utf-16").encode("utf-16"),
        package(ONE, SPINE, title="Größe").encode("latin-1"),
        package(item("c1", "c1.xhtml?a=1&b=2"), SPINE),
    ],
)
def test_package_documents_that_are_not_quite_xml(opf: str | bytes) -> None:
    loaded = load(book(opf, c1__xhtml=chapter(1)))
    assert codes(loaded) == ["4711"]
    assert not loaded.notes


def test_a_cut_package_document_is_read_as_far_as_possible() -> None:
    opf = package(ONE, SPINE)[: -len("</spine></package>")] + "<"
    loaded = load(book(opf, c1__xhtml=chapter(1)))
    assert codes(loaded) == ["4711"]
    assert loaded.notes[0].startswith("damaged: OEBPS/content.opf: invalid XML on line 1; read as")


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("C1.XHTML", "c1.xhtml"),
        ("kapitel%201.xhtml", "kapitel 1.xhtml"),
        ("a%20b.xhtml", "a%20b.xhtml"),
        ("Text\\c1.xhtml", "Text/c1.xhtml"),
        ("Text/c1.xhtml", "Text\\c1.xhtml"),
        ("/OEBPS/c1.xhtml", "c1.xhtml"),
        ("../../OEBPS/c1.xhtml", "c1.xhtml"),
        ("./x/../c1.xhtml#top", "c1.xhtml"),
        (" c1.xhtml ", "c1.xhtml"),
        ("u\u0308ber.xhtml", "über.xhtml"),
    ],
)
def test_paths_that_are_not_quite_right(href: str, name: str) -> None:
    loaded = load(book(package(item("c1", href), SPINE), **{name.replace(".", "__"): chapter(1)}))
    assert codes(loaded) == ["4711"]


def test_names_in_utf8_that_do_not_say_so() -> None:
    data = book(package(item("c1", "über.xhtml"), SPINE), über__xhtml=chapter(1))
    # Clear the flag for UTF-8 in the member's two headers, which are the last of their kind.
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.rindex(mark) + flags + 1
        data = data[:at] + b"\0" + data[at + 1 :]
    assert codes(load(data)) == ["4711"]


def test_spines_that_are_not_quite_right() -> None:
    manifest = ONE + item("C2", "c2.xhtml") + item("c3", "c3.xhtml")
    spine = SPINE + '<itemref idref="c2"/><itemref idref="c3.xhtml"/><itemref idref="lost"/>'
    pages = {f"c{n}__xhtml": chapter(n) for n in (1, 2, 3)}
    loaded = load(book(package(manifest, spine), **pages))
    assert codes(loaded) == ["4711", "4712", "4713"]
    assert loaded.notes == ("document 4 of 4: lost is not in the list of files",)
    loaded = load(book(package(manifest, ""), **pages))
    assert codes(loaded) == ["4711", "4712", "4713"]
    assert loaded.notes == ("no reading order is given; in the order of the list of files",)


@pytest.mark.parametrize(
    "members",
    [
        {"META-INF/container.xml": CONTAINER.replace("OEBPS", "oebps")},
        {"META-INF/container.xml": CONTAINER.replace("content", "lost")},
        {"meta-inf/Container.xml": "\n" + DECLARATION + CONTAINER},
        {
            "META-INF/container.xml": '<c><rootfile full-path="a.pdf" media-type="a/pdf"/>'
            f"{CONTAINER}</c>"
        },
        {"mimetype": "application/epub+zip\n"},
    ],
)
def test_containers_that_are_not_quite_right(members: dict[str, str]) -> None:
    rest = {"OEBPS/content.opf": package(ONE, SPINE), "OEBPS/c1.xhtml": chapter(1)}
    assert codes(load(packed({**members, **rest}))) == ["4711"]


def test_tables_of_contents_that_are_not_quite_xml() -> None:
    ncx = (
        "\n<ncx><navMap><navPoint><navLabel><text>Salt & Pepper</text></navLabel>"
        '<content src="C1.xhtml"/></navPoint></navMap></ncx>'
    )
    opf = package(ONE + item("t", "toc.ncx", "application/x-dtbncx+xml"), SPINE)
    (section,) = load(book(opf, c1__xhtml=chapter(1), toc__ncx=ncx)).sections[:1]
    assert section.label.startswith("Salt & Pepper")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("\ufeff" + chapter(1), "4711"),
        (chapter(1).encode("utf-16"), "4711"),
        (chapter(1).replace("UTF-8", "koi8-r").replace("code", "код").encode("koi8-r"), "код"),
        (chapter(1).replace("<h1>", "<h1>&nbsp;A&B "), "A&B"),
        (chapter(1).replace("</p>", "<br></p>"), "4711"),
        (chapter(1).replace(DECLARATION, ""), "4711"),
        (chapter(1).replace("<p>", "<p><![CDATA[a<b]]> "), "a<b"),
    ],
)
def test_pages(page: str | bytes, text: str) -> None:
    assert text in load(book(package(ONE, SPINE), c1__xhtml=page)).sections[0].text


def test_what_is_encrypted_is_said() -> None:
    def encryption(*names: str) -> str:
        return "".join(
            '<x><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>'
            f'<CipherData><CipherReference URI="{name}"/></CipherData></x>'
            for name in names
        )

    manifest, spine = ONE + item("c2", "c2.xhtml"), SPINE + '<itemref idref="c2"/>'
    members: dict[str, str | bytes] = {
        "META-INF/container.xml": CONTAINER,
        "META-INF/encryption.xml": f"<e>{encryption('OEBPS/c2.xhtml', 'OEBPS/p.jpg')}</e>",
        "OEBPS/content.opf": package(manifest, spine),
        "OEBPS/c1.xhtml": chapter(1),
        "OEBPS/c2.xhtml": b"\x01\x02",
    }
    loaded = load(packed(members))
    assert codes(loaded) == ["4711"]
    assert loaded.notes == ("document 2 of 2: encrypted (copy protection)",)
    both = f"<e>{encryption('OEBPS/c1.xhtml', 'OEBPS/c2.xhtml')}</e>"
    for said in (both, '<EncryptionMethod Algorithm="x"/>'):
        members["META-INF/encryption.xml"] = said
        with pytest.raises(UnreadableError, match="encrypted EPUB"):
            load(packed(members))


def test_text_is_raised_as_the_style_sheet_says() -> None:
    page = (
        f'{DECLARATION}<html xmlns="http://www.w3.org/1999/xhtml"><head><title/>'
        '<link rel="stylesheet" href="../styles/book.css" type="text/css"/>'
        '<link rel="stylesheet" href="missing.css"/></head><body>'
        '<p>10<span class="CharOverride-2">6</span> cells</p></body></html>'
    )
    opf = package(item("a", "text/a.xhtml"), '<itemref idref="a"/>')
    sheet = "p { margin: 0 }\nspan.CharOverride-2 { font-size: 58.3%; vertical-align: super; }"
    loaded = load(book(opf, text__a=b"", **{"text/a.xhtml": page, "styles/book.css": sheet}))
    assert "10⁶ cells" in loaded.sections[0].text
    assert not loaded.notes
