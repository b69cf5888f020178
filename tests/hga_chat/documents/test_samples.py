import json
from pathlib import Path

import pytest

from hga_chat.documents import Document, load_documents

SAMPLES = Path(__file__).parents[3] / "assets" / "samples"


@pytest.fixture(scope="module")
def handbook() -> Document:
    loaded = load_documents([str(SAMPLES / "handbook.pdf")])
    assert not loaded.skipped
    return loaded.documents[0]


def _plain(text: str) -> str:
    return " ".join(text.split())


def test_pages_carry_their_printed_numbers(handbook: Document) -> None:
    labels = [section.page for section in handbook.sections]
    assert labels == ["i", "ii", "iii", *map(str, range(1, 35))]


def test_headers_and_page_numbers_are_left_out(handbook: Document) -> None:
    titles = [section.text.split("\n")[0] for section in handbook.sections]
    for section in handbook.sections[3:]:
        lines = section.text.split("\n")
        assert lines[-1] != section.page
        # A chapter's title is at the top of its first page only.
        assert titles.count(lines[0]) == 1


def test_pages_are_named_by_their_headings(handbook: Document) -> None:
    labels = {section.page: section.label for section in handbook.sections}
    assert labels["i"] == "page i (sheet 1 of 37)"
    assert labels["5"] == "page 5 (sheet 8 of 37), 3 The Halloran telescope"
    assert labels["6"] == "page 6 (sheet 9 of 37), Balance"


def test_every_answer_is_on_its_page(handbook: Document) -> None:
    pages = {section.page: _plain(section.text) for section in handbook.sections}
    questions = json.loads((SAMPLES / "questions.json").read_text("utf-8"))
    assert len(questions) >= 25
    for entry in questions:
        assert entry["answer"] in pages[entry["page"]], entry["question"]


def test_the_pdf_is_made_from_the_texts(handbook: Document) -> None:
    words = set("\n".join(section.text for section in handbook.sections).split())
    for source in (SAMPLES / "handbook").glob("*.md"):
        written = {word for word in source.read_text("utf-8").split() if word.isalnum()}
        assert written <= words, source.name


def test_the_pdf_is_small() -> None:
    assert (SAMPLES / "handbook.pdf").stat().st_size < 500_000
