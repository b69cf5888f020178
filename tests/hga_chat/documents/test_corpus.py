"""Every file of the corpus except PDFs, against expected.json, which was written by hand."""

import json
from pathlib import Path

import pytest

from hga_chat.documents import Document, Section, load_documents

DATA = Path(__file__).parents[2] / "data"
FOLDERS = ("docx", "epub", "html", "notebook", "other", "table", "text")
EXPECTED = json.loads((DATA / "expected.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def loaded_corpus() -> tuple[dict[str, Document], dict[str, list[str]]]:
    """Documents and reasons by path, loaded folder by folder as users would."""
    documents, reasons = {}, {}
    for folder in FOLDERS:
        loaded = load_documents([str(DATA / folder)])
        documents |= {f"{folder}/{document.path}": document for document in loaded.documents}
        for entry in loaded.skipped:
            reasons.setdefault(f"{folder}/{entry.path}", []).append(entry.reason)
    return documents, reasons


def lines_of(section: Section) -> str | None:
    return f"{section.start_line}-{section.end_line}" if section.start_line else None


def test_every_file_has_an_expectation() -> None:
    files = {str(file.relative_to(DATA)) for name in FOLDERS for file in (DATA / name).iterdir()}
    assert files == EXPECTED.keys()


def test_the_corpus_is_small() -> None:
    files = [file for file in DATA.rglob("*") if file.is_file()]
    assert len(files) >= 40
    assert sum(file.stat().st_size for file in files) < 1_000_000


@pytest.mark.parametrize("path", EXPECTED)
def test_file(path: str, loaded_corpus) -> None:
    documents, reasons = loaded_corpus
    expected = EXPECTED[path]
    if "skipped" in expected:
        assert path not in documents
        (reason,) = reasons[path]
        assert reason.startswith(expected["skipped"])
        return
    document = documents[path]
    assert document.format == expected["format"]
    assert reasons.get(path, []) == expected.get("notes", [])
    found = [[section.label, lines_of(section), section.text] for section in document.sections]
    if expected.get("partly"):
        ((label, lines, text),) = expected["sections"]
        assert [label, lines] in [entry[:2] for entry in found]
        assert text in "".join(entry[2] for entry in found)
    else:
        assert found == expected["sections"]


def test_nothing_outside_a_file_is_loaded(loaded_corpus) -> None:
    documents, reasons = loaded_corpus
    outside = Path("/etc/hostname").read_text("utf-8").strip()
    text = repr(documents["epub/outside.epub"]) + repr(reasons)
    assert outside
    assert outside not in text
