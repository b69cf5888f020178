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
    for section in handbook.sections[1:]:
        assert section.text.split("\n")[-1] == section.page


def test_every_answer_stands_on_its_page(handbook: Document) -> None:
    pages = {section.page: _plain(section.text) for section in handbook.sections}
    questions = json.loads((SAMPLES / "questions.json").read_text("utf-8"))
    assert len(questions) >= 25
    for entry in questions:
        assert entry["answer"] in pages[entry["page"]], entry["question"]


def test_the_pdf_is_made_from_the_texts(handbook: Document) -> None:
    words = set("".join(section.text for section in handbook.sections).split())
    for source in (SAMPLES / "handbook").glob("*.md"):
        written = {word for word in source.read_text("utf-8").split() if word.isalnum()}
        assert written <= words, source.name


def test_the_pdf_is_small() -> None:
    assert (SAMPLES / "handbook.pdf").stat().st_size < 500_000
