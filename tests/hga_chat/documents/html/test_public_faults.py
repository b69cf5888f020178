"""Pages from bug reports of other programs, and their kin, with what a browser shows."""

import pytest

from hga_chat.documents.html.reader import load_html
from hga_chat.documents.html.render import render


def text(html: str) -> str:
    return "\n".join(line for line in render(html, keep_lines=True).lines if line)


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        # hrbrmstr/docxtractr#38, tc39/ecmarkup#516, yihui/knitr#854
        ("The count was 3 × 10<sup>6</sup> cells; 10<sup>-9</sup> m", "3 × 10⁶ cells; 10⁻⁹ m"),
        ('The yield was 5<sup><a href="#n1">1</a></sup> tons.', "was 5[1] tons."),
        ('5<a href="#n1"><sup>1</sup></a> tons', "5[1] tons"),
        ('5<a role="doc-noteref" href="n.html#1">1</a> tons', "5[1] tons"),
        ("5<sup>[1]</sup><sup>: 20–25 </sup> tons", "5[1]: 20–25 tons"),
        ("H<sub>2</sub>O, x<sub>max</sub>, e<sup>2x</sup>", "H₂O, x_{max}, e^{2x}"),
        ('10<span style="vertical-align: super">6</span> cells', "10⁶ cells"),
        ('CO<span style="font-size:smaller; vertical-align:sub">2</span>', "CO₂"),
        # As books exported from layout programs and word processors mark it.
        (
            "<style>.a, span.up {font-size: 58%; vertical-align: super}</style>"
            '10<span class="x up">6</span> cells, m<i class="a">2</i>',
            "10⁶ cells, m²",
        ),
        (
            "<style>/* .up{vertical-align:super} */ @media all {.t2{font-size:.7em;"
            "vertical-align: -0.3em}} .d{font-size:300%;vertical-align:-.3em}</style>"
            'H<span class="t2">2</span>O <b class="d">O</b>nce <i class="up">6</i>',
            "H₂O Once 6",
        ),
        (
            "<dl><dt>t<dd><p>a<p>b<dl><dt>u<dd>c</dl><dt>v<dd><ul><li>d</ul></dl>",
            "t\n  a\n  b\n  u\n    c\nv\n  - d",
        ),
        # What the fonts of symbols mean, as old pages and word processors have them.
        ('50 <font face="Symbol">m</font>g, <font face=Arial>m</font>', "50 µg, m"),
        ("<b style=\"font-family: 'Symbol'\">\u00b3 m<i style='font:7pt Arial'>m</i></b>", "≥ µm"),
        ("<style>.s{font-family:Wingdings}</style><b class=s>\uf0fe\u00a8</b> Yes", "☑□ Yes"),
        ("<p style='font-family: Symbola, Symbol'>m</p>", "m"),
        ("<input type=checkbox role=button>Menu", "Menu"),
        # Numbers of verses and lines, as books have them.
        (
            "<style>.n{float:right}.i,.m{float:left}.a{position:absolute}</style>"
            "Hofgarten,<b class=n>10</b><br><b class=i>O</b>nce<br><b class=m>20</b>And<br>"
            'more<b class=a>30</b>less<b style="float:right">x</b>',
            "Hofgarten, 10\nOnce\n20 And\nmore 30 less x",
        ),
        (
            "<style>.up{vertical-align:super}</style>"
            '1<b class="up" style="vertical-align:baseline">0</b>',
            "10",
        ),
        ("the 1<sup>st</sup> of May", "the 1st of May"),
        ("<h2>Area in m<sup>2</sup></h2>", "## Area in m²"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</rt></ruby>", "漢(かん)字(じ)"),
        ("It costs <s>50</s> 40 €, <del>not</del> VAT", "It costs ~~50~~ 40 €, ~~not~~ VAT"),
    ],
)
def test_raised_and_lowered_text(html: str, shown: str) -> None:
    assert shown in text(html)


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        # microsoft/markitdown#1512, dbashford/textract#174
        (
            "<p>Rate: <math><mfrac><mi>a</mi><mi>b</mi></mfrac><mo>=</mo>"
            "<msup><mi>x</mi><mn>2</mn></msup></math></p>",
            "Rate: a/b = x^2",
        ),
        (
            "<math><semantics><mfrac><mi>a</mi><mi>b</mi></mfrac><annotation encoding="
            "'application/x-tex'>\\frac{a}\n{b}</annotation></semantics></math>",
            "$\\frac{a} {b}$",
        ),
        ("<math alttext='x^{2}'><msup><mi>x</mi><mn>2</mn></msup></math>", "$x^{2}$"),
        # MathJax 2, KaTeX, Wikipedia
        ("<script type='math/tex; mode=display'>\\sqrt{x}</script>", "$\\sqrt{x}$"),
        (
            "<span class=katex><span class=katex-mathml><math><mi>x</mi></math></span>"
            "<span class=katex-html aria-hidden=true><span>x</span></span></span>.",
            "x.",
        ),
        (
            "<span style='display: none'><math><mi>x</mi></math></span>"
            "<img class=mwe-math-fallback-image-inline alt='{\\displaystyle x}'>",
            "${\\displaystyle x}$",
        ),
        (
            "<m:math xmlns:m='http://www.w3.org/1998/Math/MathML'>"
            "<m:mfrac><m:mi>a</m:mi><m:mi>b</m:mi></m:mfrac></m:math>",
            "a/b",
        ),
    ],
)
def test_formulas(html: str, shown: str) -> None:
    assert text(html) == shown


@pytest.mark.parametrize(
    "html",
    [
        # laurent22/joplin#14893
        "<div style='transform:translateZ(0);-webkit-backface-visibility:hidden;"
        "backface-visibility:hidden'><p>4711</div>",
        "<p style='display:none;display:block'>4711",
        "<p style='/* display:none */'>4711",
        "<p style='content:\"display:none\"'>4711",
        "<p style='-x-display:none'>4711",
        "<div style='visibility:hidden'>x<p style='visibility:visible'>4711</div>",
        "<p hidden style='display:block'>4711",
        "<p hidden=until-found>4711",
        "<p aria-hidden=true>4711",
        "<button>4711</button>",
        "<textarea>4711</textarea>",
        "<input value=4711>",
        "<select><option>1<option selected>4711</select>",
        "<svg><text>4711</text></svg>",
        "<details><summary>x</summary>4711</details>",
        "<iframe srcdoc='<p>4711'></iframe>",
        "<dialog open>4711</dialog>",
        "<svg><title>4711</title></svg>",
        "<p title='>'>4711",
        "<p data-a='<script>'>4711",
        "<xmp>4711",
        "<p>a<!-->4711",
        "<!-- a --!>4711",
        "<title>a</title/>4711",
        "<textarea></textarea >4711",
        "<script><!-- </script>4711",
        "<div><template shadowrootmode=open><p><slot></slot></template>4711</div>",
        "<div><template shadowrootmode=open><p>4711</template></div>",
    ],
)
def test_what_a_browser_shows_is_kept(html: str) -> None:
    assert "4711" in text(html)


@pytest.mark.parametrize(
    ("html", "what"),
    [
        ("<p style='DISPLAY : none'>4711</p>", "hidden text"),
        ("<p style='display:none !important;display:block'>4711</p>", "hidden text"),
        ("<p style='color:red;visibility:hidden'>4711</p>", "hidden text"),
        ("<p style='visibility:collapse'>4711</p>", "hidden text"),
        ("<p hidden>4711</p>", "hidden text"),
        ("<dialog>4711</dialog>", "hidden text"),
        ("<script>score(4711)</script>", "scripts"),
        ("<script src=4711.js></script>", "scripts"),
        ("<template>4711</template>", "templates"),
        ("<noscript>4711</noscript>", "text for browsers without scripts"),
        ("<iframe src=4711.html></iframe>", "embedded pages"),
        ("<object data=4711.pdf>4711</object>", "embedded objects"),
        ("<video src=4711>4711</video>", "audio and video"),
        ("<nav>4711</nav>", "navigation"),
        ("<img src=4711.png>", "images without a description"),
    ],
)
def test_what_is_left_out_is_said(html: str, what: str) -> None:
    # Graphify-Labs/graphify#2196
    loaded = load_html("a.html", f"<p>a</p>{html}".encode())
    assert [section.text for section in loaded.sections] == ["a\n"]
    assert loaded.left_out == (f"{what} (1)",)


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        # arc53/DocsGPT#2797, Alir3z4/html2text#367
        (
            '<tr><th>Drug</th><th>Route</th><th>Dose</th></tr><tr><td rowspan="2">Alpha</td>'
            "<td>oral</td><td>5 mg</td></tr><tr><td>iv</td><td>2 mg</td></tr>"
            '<tr><td colspan="2">Sum</td><td>7 mg</td></tr>',
            "Drug | Route | Dose\nAlpha | oral | 5 mg\nAlpha | iv | 2 mg\nSum |  | 7 mg",
        ),
        ("<tr><td>a<td rowspan=0>b<tr><td>c<tr><td>d", "a | b\nc | b\nd | b"),
        ("<tr><td colspan=2 rowspan=2>a<td>b<tr><td>c", "a |  | b\na |  | c"),
        ("<tr><td><td>b<tr><td>c<td>", "| b\nc |"),
        ("<thead><tr><th rowspan=9>a<th>b<tbody><tr><td>c<td>d", "a | b\nc | d"),
        ("<tr><td>a<td><ul><li>b<li>c</ul><td>d", "a | - b - c | d"),
        ("<tr><td rowspan=2>a<td>b<tr><td>c<tr><td>d<td>e", "a | b\na | c\nd | e"),
    ],
)
def test_spans_keep_columns(rows: str, shown: str) -> None:
    assert text(f"<table>{rows}</table>") == shown


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        # matthewwithanm/python-markdownify#263, baynezy/Html2Markdown#170
        ("<ol type=a><li>rent<li>heating</ol>", "a. rent\nb. heating"),
        ("<ol><li>First<li value=7>Seventh<li>Eighth</ol>", "1. First\n7. Seventh\n8. Eighth"),
        ("<ol reversed><li>two<li>one</ol>", "2. two\n1. one"),
        ("<ol reversed start=9><li>a<li>b</ol>", "9. a\n8. b"),
        ("<ol start=-1><li>a<li>b<li>c</ol>", "-1. a\n0. b\n1. c"),
        ("<ol type=I start=4><li>a<li>b</ol>", "IV. a\nV. b"),
        ("<ol type=A start=26><li>a<li>b</ol>", "Z. a\nAA. b"),
        ("<ol style='list-style-type: lower-roman'><li>a<li>b</ol>", "i. a\nii. b"),
        ("<ol style='list-style: upper-alpha inside'><li>a</ol>", "A. a"),
        ("<ol><li>a<li hidden>b<li>c</ol>", "1. a\n2. c"),
        ("<ol><li type=i>a<li>b</ol>", "i. a\n2. b"),
        ("<ol><li>a<ol type=a><li>b</ol><li>c</ol>", "1. a\n  a. b\n2. c"),
        ("<menu><li>a</menu>", "- a"),
    ],
)
def test_list_numbers(html: str, shown: str) -> None:
    assert text(html) == shown


def test_form_controls_show_their_values() -> None:
    html = (
        "<form>Name <input value='Erika'> <label><input type=checkbox checked>Smoker</label>"
        "<label><input type=checkbox>Insured</label> Plan <select><option>A<option selected>B"
        "</select><input type=hidden value=x><input type=password value=y></form>"
    )
    assert text(html) == "Name Erika ☑ Smoker☐ Insured Plan B"


def test_xhtml_is_xml() -> None:
    html = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>\n<body><p>a&nbsp;b'
        "<![CDATA[<c> & d]]></p><script>x</script><a id='e'/>f</body></html>"
    )
    page = render(html, keep_lines=True)
    assert page.lines == ["a b<c> & d", "", "f"]
    assert page.anchors == {"e": 1}
    # The same with a mistake, so that it is read as HTML.
    assert render(html.replace("</body>", "<br></body>")).lines == ["a b<c> & d", "", "f"]
