import pytest

from hga_chat.documents.html.tree import Element, Text, parse


def texts(html: str) -> list[tuple[str, int]]:
    """Return the words of a page with their lines."""
    found: list[tuple[str, int]] = []

    def visit(element: Element) -> None:
        for child in element.children:
            if isinstance(child, Element):
                visit(child)
            else:
                lines = enumerate(child.data.split("\n"), start=child.line)
                found.extend((text.strip(), line) for line, text in lines if text.strip())

    visit(parse(html))
    return found


@pytest.mark.parametrize(
    ("html", "lines"),
    [
        ("\n\na", [("a", 3)]),
        ("<!-- a\n\n-->\n<!doctype\nhtml>\nb", [("b", 6)]),
        ("<p\nclass=a\n>b\nc</p\n>\nd", [("b", 3), ("c", 4), ("d", 6)]),
        ("<pre>\n\na</pre>b", [("a", 3), ("b", 3)]),
        ("a<!--\n\n-->b", [("a", 1), ("b", 3)]),
        ("<head>\n<title>a</title>\n</head>\n<body>\nb", [("a", 2), ("b", 5)]),
        ("<ul>\n<li>a\n<li>b</ul>\nc", [("a", 2), ("b", 3), ("c", 4)]),
        ("<table>\n<tr><td>a\n<td>b</table>\nc", [("a", 2), ("b", 3), ("c", 4)]),
    ],
)
def test_lines(html: str, lines: list[tuple[str, int]]) -> None:
    assert texts(html) == lines


def test_lines_of_xml() -> None:
    body = '<p\nid="a"\n>b\nc</p>\n<!--\n\n--> d<br/>\ne'
    xml = f'<?xml version="1.0"?>\n<html\nxmlns="x">{body}</html>'
    assert texts(xml) == [("b", 5), ("c", 6), ("d", 9), ("e", 10)]


def test_the_whole_text_of_an_element() -> None:
    (element,) = (e for e in parse("<p>a<b>b<i>c</i></b>d").descendants() if e.tag == "p")
    assert element.text() == "abcd"
    assert [e.tag for e in element.descendants()] == ["b", "i"]


@pytest.mark.parametrize(
    "html",
    [
        '<!DOCTYPE html [<!ENTITY a "b">]><html xmlns="http://www.w3.org/1999/xhtml">&a;</html>',
        '<?xml version="1.0"?><a>b</a>',
        '<?xml version="1.0" encoding="koi8-r"?><a>b</a>',
        '\n<?xml version="1.0"?>\n<a>b</a>',
        '<?xml version="1.0"?><a>b',
        '<?xml version="1.0"?><a><![CDATA[b</a>',
    ],
)
def test_xhtml(html: str) -> None:
    (last,) = (child for element in [parse(html)] for child in _texts(element) if "b" in child.data)
    assert last.data.startswith("b")


def _texts(element: Element) -> list[Text]:
    found = []
    for child in element.children:
        found += [child] if isinstance(child, Text) else _texts(child)
    return found
