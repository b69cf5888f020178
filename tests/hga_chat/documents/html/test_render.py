import pytest
from hypothesis import given
from hypothesis import strategies as st

from hga_chat.documents.html.decode import decode_html
from hga_chat.documents.html.reader import load_html
from hga_chat.documents.html.render import render
from hga_chat.documents.types import UnreadableError


def lines(html: str) -> list[str]:
    return render(html, keep_lines=True).lines


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one<p>two", ["one", "", "two"]),
        ("<div>one</div><div>two</div>", ["one", "two"]),
        ("a<br>b", ["a", "b"]),
        ("<b>bo</b>ld", ["bold"]),
        ("a &lt;b&gt; &amp; c&nbsp;d", ["a <b> & c d"]),
        ("soft&shy;hyphen", ["softhyphen"]),
        ("<ol start=7><li>a</ol>", ["7. a"]),
        ("<ul><li>a<ul><li>b<li>c</ul><li>d</ul>", ["- a", "  - b", "  - c", "- d"]),
        ("<ul><li>a\nb</ul>", ["- a", "  b"]),
        ("<dl><dt>a<dd>b</dl>", ["a", "  b"]),
        ("<blockquote>a<blockquote>b</blockquote></blockquote>", ["> a", "", "> > b"]),
        ("<pre>\n  a\n\n b  c</pre>", ["  a", "", " b  c"]),
        ("<pre><b>x</b>\t1</pre>y", ["x\t1", "", "y"]),
        ("<img alt=' a\n lamp '><img alt=''><img>", ["[image: a lamp]"]),
        ("<h2>A\n<em>b</em></h2>c", ["## A b", "", "c"]),
        ("<h1><div>A</div><div>B</div></h1>", ["# A B"]),
        ("<h1>A<p>b", ["# A", "", "b"]),
        ("<h3></h3>a", ["a"]),
        ("<table><tr><th>a<td>b<tr><td>c<td></table>", ["a | b", "c |"]),
        ("<table><tr><td><h1>A</h1><p>b</table>", ["# A", "", "b"]),
        ("<table><tr><td>a<table><tr><td>b<td>c</table>d</table>", ["a", "", "b | c", "", "d"]),
        ("<table><tr><td>a</td>b<td>c</table>", ["b", "", "a | c"]),
        ("<table><tr><td>a</td><table><tr><td>b</td></table></table>", ["a", "", "b"]),
        ("a<script>'<p>b</p>'</script>c", ["ac"]),
        ("<div style='display: none'>a</div><p hidden>b</p><p aria-hidden=true>¶</p>d", ["d"]),
        ("<div><nav>a</div>b", ["b"]),
        ("<div role=navigation>a</div>b", ["b"]),
        ("a</b></i></p>b", ["a", "", "b"]),
        ("<![foo[a]]>b<![CDATA[c]]>", ["b"]),
        ("<!-- a -->b<?php c ?>d", ["bd"]),
        ("a < b & c", ["a < b & c"]),
    ],
)
def test_text(html: str, text: list[str]) -> None:
    found = lines(html)
    while found and not found[-1]:
        found.pop()
    assert found == text


def test_lines_of_the_source() -> None:
    outline = render("<p>\n\na\nb <i\nclass=x>c</i>\n\n<p>d", keep_lines=True)
    assert list(zip(outline.lines, outline.numbers or (), strict=True)) == [
        ("a", 3),
        ("b c", 4),
        ("", 4),
        ("d", 7),
    ]


def test_paragraphs_become_one_line_without_keep_lines() -> None:
    assert render("<p>a\n b\n</p><pre>c\nd</pre>").lines == ["a b", "", "c", "d"]


def test_line_ends_between_east_asian_characters_are_no_spaces() -> None:
    # CSS Text Module Level 3, segment break transformation rules
    assert render("<p>基本\n  <b>版面</b>\nA\n版 面<h2>柱\nと</h2>한국\n어").lines == [
        *("基本版面 A 版 面", "", "## 柱と", "", "한국 어"),
    ]


def test_navigation_is_kept_if_there_is_nothing_else() -> None:
    (section,) = load_html("a.html", b"<nav><a href=b>Chapter 1</a></nav>").sections
    assert section.text == "Chapter 1\n"


def test_self_closing_elements_of_xhtml() -> None:
    text = '<?xml version="1.0"?><html><head><title/><script src="a"/></head><body><a id="x"/>b'
    outline = render(text)
    assert outline.lines == ["b"]
    assert outline.anchors == {"x": 0}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('<meta charset="koi8-r">лампа'.encode("koi8-r"), "лампа"),
        ('<?xml version="1.0" encoding="Shift_JIS"?>鍵'.encode("shift_jis"), "鍵"),
        ('<meta charset="koi8-r">лампа'.encode(), "лампа"),
        ('<meta charset="nonsense">Größe'.encode("latin-1"), "Größe"),
        ('<meta charset="punycode">Größe'.encode("latin-1"), "Größe"),
        ('<meta charset="rot13">Größe'.encode("latin-1"), "Größe"),
        ('<meta charset="utf-8">Größe'.encode("utf-16"), "Größe"),
        ('<meta charset="utf-8">Größe'.encode("utf-8-sig"), "Größe"),
    ],
)
def test_encodings(data: bytes, text: str) -> None:
    assert decode_html(data).endswith(f">{text}")


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 100_000 + "deep",
        "<ul><li>" * 20_000 + "deep",
        "<table><tr><td>" * 20_000 + "deep",
        "<blockquote>" * 20_000 + "deep",
        "<h1>" * 20_000 + "deep",
        "<b>" * 20_000 + "</i>" * 20_000 + "deep",
        "<table><td>" * 10_000 + "</table>" * 10_000 + "deep",
    ],
)
def test_deep_nesting_is_harmless(html: str) -> None:
    loaded = load_html("a.html", html.encode())
    assert "deep" in loaded.sections[-1].text
    assert sum(len(section.text) for section in loaded.sections) < len(html)


def test_a_page_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from hga_chat.documents.html import reader as html
    from hga_chat.documents.sandbox.limits import Limits

    monkeypatch.setattr(html, "LIMITS", Limits(seconds=0.01))
    with pytest.raises(UnreadableError, match="parsing took more than"):
        load_html("a.html", b"<p>a" * 200_000)


TAGS = [
    "a",
    "b",
    "br",
    "dd",
    "div",
    "dl",
    "h1",
    "h2",
    "img",
    "li",
    "nav",
    "ol",
    "p",
    "pre",
    "script",
    "span",
    "style",
    "svg",
    "table",
    "td",
    "th",
    "title",
    "tr",
    "ul",
]
MARKUP = st.lists(
    st.one_of(
        st.sampled_from([f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]),
        st.sampled_from(["<", "&", "&lt;", "<!--", "-->", "<![", "]]>", "\n", "x y", "<p hidden>"]),
        st.text(max_size=5),
    ),
    max_size=40,
).map("".join)


@given(MARKUP)
def test_any_markup(html: str) -> None:
    outline = render(html, keep_lines=True)
    numbers = outline.numbers
    assert numbers is not None
    assert len(numbers) == len(outline.lines)
    assert all(1 <= number <= html.count("\n") + 1 for number in numbers)
    assert list(numbers) == sorted(numbers)
    assert not any("\n" in line for line in outline.lines)
    for index, level, title in outline.headings:
        assert outline.lines[index].endswith(f"{'#' * level} {title}")
    assert [index for index, _, _ in outline.headings] == sorted(
        index for index, _, _ in outline.headings
    )
    assert all(0 <= index <= len(outline.lines) for index in outline.anchors.values())


@given(
    st.text(alphabet=st.characters(exclude_characters="<&\r\0", exclude_categories=["Cs", "Cf"]))
)
def test_text_without_markup_keeps_its_words(text: str) -> None:
    words = "".join(render(text, keep_lines=True).lines).split()
    assert "".join(words) == "".join(text.split())
