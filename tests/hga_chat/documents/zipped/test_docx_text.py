"""Word documents from bug reports of other programs, and their kin, with what Word shows."""

from collections.abc import Callable

import pytest

from hga_chat.documents.types import LoadedFile
from hga_chat.documents.zipped.reader import load_zipped
from tests.hga_chat.documents.zipped.conftest import NAMESPACES

Make = Callable[..., bytes]


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*runs: str) -> str:
    return f"<w:p>{''.join(runs)}</w:p>"


def sym(font: str, code: str) -> str:
    return f'<w:r><w:sym w:font="{font}" w:char="{code}"/></w:r>'


def field(code: str, result: str = "") -> str:
    parts = "".join(
        f"<w:r><w:instrText>{part}</w:instrText></w:r>" for part in (code[:4], code[4:])
    )
    begin, separate, end = (
        f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>' for kind in ("begin", "separate", "end")
    )
    return begin + parts + separate + run(result) + end


def load(data: bytes) -> LoadedFile:
    return load_zipped("a.docx", data)


def text(data: bytes) -> str:
    return "".join(section.text for section in load(data).sections).strip()


RAISED = '<w:vertAlign w:val="superscript"/>'
LOWERED = '<w:vertAlign w:val="subscript"/>'
SYMBOL = '<w:rFonts w:ascii="Symbol" w:hAnsi="Symbol"/>'


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        # mwilliamson/dotnet-mammoth#6, python-openxml/python-docx#948, plutext/docx4j#393
        (
            (
                *(run("Give 50 "), sym("Symbol", "F06D"), run("g at "), sym("Symbol", "F0B3")),
                *(run(" 5 "), sym("Symbol", "F0B0"), run("C")),
            ),
            "Give 50 µg at ≥ 5 °C",
        ),
        ((sym("Wingdings", "F0FE"), run(" "), sym("Wingdings", "F0A8")), "☑ □"),
        ((sym("Wingdings", "FE"), sym("Wingdings 2", "F052"), sym("Wingdings 2", "F0A3")), "☑☑□"),
        ((sym("Webdings", "F061"), sym("Wingdings 3", "F067")), "✓→"),
        ((sym("Arial", "00B5"), sym("Cambria Math", "2265")), "µ≥"),
        ((run("50 "), run("m", SYMBOL), run("g")), "50 µg"),
        ((run("50 "), run("\uf06d", SYMBOL), run("g")), "50 µg"),
        ((run("\uf0b7"), run(" a")), "• a"),
        ((run("a ", '<w:rStyle w:val="Greek"/>'), run("a")), "α a"),
        ((run("50 "), field(r'SYMBOL 109 \f "Symbol" \s 12'), run("g")), "50 µg"),
        # hrbrmstr/docxtractr#38
        (
            (
                run("3 × 10"),
                run("6", RAISED),
                run(" cells; 10"),
                run("-", RAISED),
                run("9", RAISED),
            ),
            "3 × 10⁶ cells; 10⁻⁹",
        ),
        ((run("H"), run("2", LOWERED), run("O, x"), run("max", LOWERED)), "H₂O, x_{max}"),
        ((run("m"), run("2", '<w:position w:val="6"/><w:sz w:val="16"/>')), "m²"),
        ((run("m"), run("2", '<w:rStyle w:val="Power"/>')), "m²"),
        ((run("m"), run("2", '<w:rStyle w:val="Power"/><w:vertAlign w:val="baseline"/>')), "m2"),
        ((run("all of it 12", RAISED),), "all of it 12"),
        ((run("It costs "), run("50 ", "<w:strike/>"), run("40")), "It costs ~~50~~ 40"),
        ((run("not", '<w:strike w:val="0"/>'),), "not"),
        (
            (
                run("a"),
                "<w:r><w:ruby><w:rubyPr/><w:rt><w:r><w:t>かん</w:t></w:r></w:rt><w:rubyBase>"
                "<w:r><w:t>漢</w:t></w:r></w:rubyBase></w:ruby></w:r>",
            ),
            "a漢(かん)",
        ),
        (
            (
                '<w:r><w:fldChar w:fldCharType="begin"><w:ffData><w:checkBox><w:default w:val="0"/>'
                "<w:checked/></w:checkBox></w:ffData></w:fldChar></w:r>",
                '<w:r><w:fldChar w:fldCharType="end"/></w:r>',
                run("Smoker"),
            ),
            "☑ Smoker",
        ),
        (
            (
                '<w:r><w:fldChar w:fldCharType="begin"><w:ffData><w:ddList><w:result w:val="1"/>'
                '<w:listEntry w:val="A"/><w:listEntry w:val="B"/></w:ddList></w:ffData></w:fldChar>'
                '</w:r><w:r><w:fldChar w:fldCharType="end"/></w:r>',
            ),
            "B",
        ),
        ((run("see "), field("REF a", "page 4")), "see page 4"),
        # jgm/pandoc#11113
        (
            (
                run("a "),
                '<w:r><mc:AlternateContent><mc:Choice Requires="w16se"><w16se:symEx '
                'w16se:font="Segoe UI Emoji" w16se:char="1F60A"/></mc:Choice><mc:Fallback>'
                "<w:t>b</w:t></mc:Fallback></mc:AlternateContent></w:r>",
            ),
            "a 😊",
        ),
        (
            ('<w:r><w:pict><v:shape alt="A map"><v:imagedata/></v:shape></w:pict></w:r>',),
            "[image: A map]",
        ),
    ],
)
def test_runs(make_docx: Make, runs: tuple[str, ...], shown: str) -> None:
    styles = (
        f'<w:style w:type="character" w:styleId="Greek"><w:rPr>{SYMBOL}</w:rPr></w:style>'
        f'<w:style w:type="character" w:styleId="Power"><w:basedOn w:val="Up"/></w:style>'
        f'<w:style w:type="character" w:styleId="Up"><w:rPr>{RAISED}</w:rPr></w:style>'
    )
    assert text(make_docx(paragraph(*runs), styles)) == shown


def r(content: str) -> str:
    return f"<m:r><m:t>{content}</m:t></m:r>"


@pytest.mark.parametrize(
    ("formula", "shown"),
    [
        # microsoft/markitdown#1512
        (
            f"<m:f><m:num>{r('a+b')}</m:num><m:den>{r('c')}</m:den></m:f>{r('=')}<m:sSup><m:e>"
            f"{r('x')}</m:e><m:sup>{r('2')}</m:sup></m:sSup>{r('+')}<m:rad><m:deg/><m:e>{r('y')}"
            '</m:e></m:rad><m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>'
            f"{r('i=1')}</m:sub><m:sup>{r('n')}</m:sup><m:e>{r('i')}</m:e></m:nary>",
            "(a+b)/c = x^2+√y ∑_{i = 1}^n i",
        ),
        (
            f"<m:d><m:e>{r('1')}</m:e></m:d><m:f><m:num><m:sSup><m:e>{r('550e-6')}</m:e><m:sup>"
            f"{r('2')}</m:sup></m:sSup></m:num><m:den>{r('2.5')}</m:den></m:f>",
            "(1) ((550e-6)^2)/2.5",
        ),
        (
            f'<m:f><m:fPr><m:type m:val="noBar"/></m:fPr><m:num>{r("n")}</m:num><m:den>{r("k")}'
            f"</m:den></m:f>",
            "n over k",
        ),
        (f"<m:rad><m:deg>{r('3')}</m:deg><m:e>{r('x+1')}</m:e></m:rad>", "∛(x+1)"),
        (f"<m:func><m:fName>{r('sin')}</m:fName><m:e>{r('x')}</m:e></m:func>", "sin x"),
        (
            f"<m:func><m:fName><m:limLow><m:e>{r('lim')}</m:e><m:lim>{r('x→0')}</m:lim></m:limLow>"
            f"</m:fName><m:e>{r('f')}</m:e></m:func>",
            "lim_{x → 0} f",
        ),
        (f"<m:nary><m:sub/><m:sup/><m:e>{r('f')}</m:e></m:nary>", "∫f"),
        (
            '<m:d><m:dPr><m:begChr m:val="["/><m:endChr m:val="]"/></m:dPr><m:e><m:m>'
            f"<m:mr><m:e>{r('a')}</m:e><m:e>{r('b')}</m:e></m:mr>"
            f"<m:mr><m:e>{r('c')}</m:e><m:e>{r('d')}</m:e></m:mr></m:m></m:e></m:d>",
            "[a, b; c, d]",
        ),
        (
            f'<m:acc><m:accPr><m:chr m:val="⃗"/></m:accPr><m:e>{r("v")}</m:e></m:acc>',
            "v⃗",
        ),
        (
            f"<m:sPre><m:sub>{r('6')}</m:sub><m:sup>{r('14')}</m:sup><m:e>{r('C')}</m:e></m:sPre>",
            "_6^14C",
        ),
        (f"<m:eqArr><m:e>{r('x=1')}</m:e><m:e>{r('y=2')}</m:e></m:eqArr>", "x = 1; y = 2"),
    ],
)
def test_formulas(make_docx: Make, formula: str, shown: str) -> None:
    body = paragraph(run("Rate: "), f"<m:oMath>{formula}</m:oMath>")
    assert text(make_docx(body)) == f"Rate: {shown}"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        (r"EQ \f(1,2)", "1/2"),
        (r"EQ \f(a+b;\r(3,x))", "(a+b)/(∛x)"),
        (r"EQ x\s\up8(2)", "x^2"),
        (r"EQ \i\su(i=1,5,i)", "∑_{i = 1}^5 i"),
    ],
)
def test_formulas_of_fields(make_docx: Make, code: str, shown: str) -> None:
    assert text(make_docx(paragraph(run("It is "), field(code), run(".")))) == f"It is {shown}."


def test_a_large_first_letter_belongs_to_its_word(make_docx: Make) -> None:
    frame = '<w:pPr><w:framePr w:dropCap="drop" w:lines="3"/></w:pPr>'
    assert text(make_docx(paragraph(frame, run("D")) + paragraph(run("rop cap.")))) == "Drop cap."


def test_deleted_parts_of_formulas(make_docx: Make) -> None:
    formula = f"{r('x=')}<w:del>{r('1')}</w:del><w:ins>{r('2')}</w:ins>"
    assert text(make_docx(paragraph(f"<m:oMath>{formula}</m:oMath>"))) == "x = 2"


def note(kind: str, name: int, attributes: str = "") -> str:
    return f'<w:r><w:{kind}Reference {attributes} w:id="{name}"/></w:r>'


def notes(kind: str, **texts: str) -> str:
    found = "".join(
        f'<w:{kind} w:id="{name[1:]}">{paragraph(run(content))}</w:{kind}>'
        for name, content in texts.items()
    )
    separator = f'<w:{kind} w:type="separator" w:id="-1">{paragraph(run("line"))}</w:{kind}>'
    return f"<w:{kind}s {NAMESPACES}>{separator}{found}</w:{kind}s>"


def test_notes_have_the_numbers_that_word_shows(make_docx: Make) -> None:
    body = (
        paragraph(run("One"), note("footnote", 7), run(", two"), note("endnote", 3))
        + paragraph(run("Three"), note("footnote", 2), run(", four"), note("endnote", 2))
        + paragraph(run("Five"), note("footnote", 4, 'w:customMarkFollows="1"'), run("*", RAISED))
    )
    loaded = text(
        make_docx(
            body,
            footnotes=notes("footnote", n2="second", n4="* starred", n5="not used", n7="first"),
            endnotes=notes("endnote", n2="last", n3="end"),
        )
    )
    assert [line for line in loaded.split("\n") if line] == [
        "One[1], two[i]",
        "Three[2], four[ii]",
        "Five*",
        *("# Footnotes", "[1] first", "[2] second", "* starred"),
        *("# Endnotes", "[i] end", "[ii] last"),
    ]


def test_notes_with_letters(make_docx: Make) -> None:
    form = '<w:sectPr><w:footnotePr><w:numFmt w:val="lowerLetter"/></w:footnotePr></w:sectPr>'
    body = paragraph(run("One"), note("footnote", 2)) + form
    assert text(make_docx(body, footnotes=notes("footnote", n2="first"))).startswith("One[a]")


def cell(content: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{paragraph(run(content)) if content else ''}</w:tc>"


def row(*cells: str, properties: str = "") -> str:
    return f"<w:tr><w:trPr>{properties}</w:trPr>{''.join(cells)}</w:tr>"


def test_merged_cells_keep_columns(make_docx: Make) -> None:
    # arc53/DocsGPT#2797
    table = (
        row(cell("Drug"), cell("Route"), cell("Dose"))
        + row(cell("Alpha", '<w:vMerge w:val="restart"/>'), cell("oral"), cell("5 mg"))
        + row(cell("", "<w:vMerge/>"), cell("iv"), cell("2 mg"))
        + row(cell("Sum", '<w:gridSpan w:val="2"/>'), cell("7 mg"))
        + row(cell("rest"), properties='<w:gridBefore w:val="2"/>')
        + row(cell("a"), cell(""), cell("c"))
        + row(cell("gone"), properties="<w:del/>")
    )
    loaded = load(make_docx(f"<w:tbl>{table}</w:tbl>"))
    assert loaded.sections[0].text.strip().split("\n") == [
        "Drug | Route | Dose",
        "Alpha | oral | 5 mg",
        "Alpha | iv | 2 mg",
        "Sum |  | 7 mg",
        "|  | rest",
        "a |  | c",
    ]
    assert loaded.left_out == ("tracked deletions (1)",)


def test_what_is_left_out_is_said(make_docx: Make) -> None:
    body = paragraph(
        run("a"),
        run("secret", "<w:vanish/>"),
        "<w:del><w:r><w:delText>b</w:delText></w:r></w:del>",
        '<w:r><w:commentReference w:id="0"/></w:r>',
        '<w:r><w:drawing><wp:docPr id="1"/><a:blip/></w:drawing></w:r>',
        "<w:r><w:object/></w:r>",
    )
    loaded = load(make_docx(body, header1="<w:hdr/>"))
    assert loaded.sections[0].text == "a\n\n"
    assert set(loaded.left_out) == {
        "hidden text (1)",
        "tracked deletions (1)",
        "comments (1)",
        "images without a description (1)",
        "embedded objects (1)",
        "headers and footers (1)",
    }
