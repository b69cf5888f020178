"""The lines of a document in the viewer."""

from collections.abc import Sequence

from hga_chat.documents import Document, LoadedDocuments, Section, lay_out
from hga_chat.documents.plain.text import load_text
from hga_chat.screen.widgets.viewer import lines_of


class _Characters:
    """A tokenizer with a token for each character."""

    def encode(self, text: str) -> list[int]:
        return [ord(char) for char in text]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        return self.encode(text), [(at, at + 1) for at in range(len(text))]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


def _lines(*sections: Section) -> list[tuple[str, str]]:
    layout = lay_out(LoadedDocuments((Document("a", "text", sections),), ()), _Characters())
    return [(line.label, line.text) for line in lines_of(layout.documents[0])]


def test_lines_are_numbered_as_editors_number_them() -> None:
    text = "form\x0cfeed\nline\u2028separator\nnext\x85line\nvertical\x0btab\nend\n"
    found = _lines(*load_text("a", text.encode()).sections)
    assert [label for label, _ in found] == ["1", "2", "3", "4", "5"]
    assert found[4] == ("5", "end")


def test_lines_of_html_have_the_numbers_of_the_source() -> None:
    section = Section("a.html", "a", "one\n\ntwo\n", 3, 9, None, (3, 3, 9))
    assert _lines(section) == [("3", "one"), ("3", ""), ("9", "two")]
