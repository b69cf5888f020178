import random
import string
from pathlib import Path

import pytest

from hga_chat.documents import iter_documents, lay_out, survey, survey_documents
from hga_chat.documents.survey import listing
from hga_chat.documents.types import Document, Skipped

_KEY = "ghp_" + "".join(random.Random(3).choices(string.ascii_letters + string.digits, k=36))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, words in {"README.md": 20, "a.py": 300, "b.py": 100, "tests/test_a.py": 200}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("word\n" * words)
    (tmp_path / "data.bin").write_bytes(b"\0" * 9)
    return tmp_path


def _survey(tree: Path, tokenizer, budget: int = 10**6, **options: bool):
    return survey_documents(iter_documents([str(tree)]), tokenizer, budget, **options)


def test_counts_are_those_of_the_layout(tree: Path, tokenizer, make_pdf) -> None:
    (tree / "book.pdf").write_bytes(make_pdf(["One page", "Another page", None]))
    for number in range(300):  # more than a batch
        (tree / f"{number}.txt").write_text("word of a text that fills batches\n" * 100)
    found = _survey(tree, tokenizer)
    layout = lay_out(found.loaded, tokenizer)
    assert [(d.path, d.tokens, d.sections) for d in found.counted] == [
        (span.document.path, span.tokens, len(span.sections)) for span in layout.documents
    ]
    assert found.tokens == len(layout)
    assert len(found.counted) == 305
    assert [entry.path for entry in found.loaded.skipped] == ["book.pdf", "data.bin"]


def test_over_the_budget_all_documents_are_counted_but_not_all_kept(tree: Path, tokenizer) -> None:
    found = _survey(tree, tokenizer, 500)
    assert [d.path for d in found.counted] == ["README.md", "a.py", "b.py", "tests/test_a.py"]
    assert found.tokens > 1000
    assert len(found.loaded.documents) < 4


def test_fit_leaves_out_by_the_rules_and_says_so(tree: Path, tokenizer) -> None:
    whole = {d.path: d.tokens for d in _survey(tree, tokenizer).counted}
    budget = sum(whole.values()) - 1
    found = _survey(tree, tokenizer, budget, fit=True)
    assert [d.path for d in found.counted] == ["README.md", "a.py", "b.py"]
    assert [d.path for d in found.loaded.documents] == ["README.md", "a.py", "b.py"]
    assert found.loaded.skipped == (
        Skipped("tests/test_a.py", "left out by --fit: a test"),
        Skipped("data.bin", "binary"),
    )
    assert found.tokens == sum(whole.values()) - whole["tests/test_a.py"]


def test_fit_changes_nothing_if_everything_fits(tree: Path, tokenizer) -> None:
    assert _survey(tree, tokenizer, fit=True) == _survey(tree, tokenizer)


def test_where_not_even_one_document_fits_all_are_counted(tree: Path, tokenizer) -> None:
    found = _survey(tree, tokenizer, 10, fit=True)
    assert found.counted == _survey(tree, tokenizer).counted
    assert found.tokens > 10


def test_secrets_are_reported_and_can_be_redacted(tree: Path, tokenizer) -> None:
    (tree / "b.py").write_text(f"import os\nTOKEN = '{_KEY}'\n" + "word\n" * 9)
    reported = _survey(tree, tokenizer)
    assert [secret.place for secret in reported.secrets] == ["b.py:2"]
    redacted = _survey(tree, tokenizer, without_secrets=True)
    assert redacted.secrets == reported.secrets
    texts = {d.path: d.sections[0].text for d in redacted.loaded.documents}
    assert texts["b.py"] == "import os\nTOKEN = '[redacted GitHub token]'\n" + "word\n" * 9
    assert redacted.tokens == len(lay_out(redacted.loaded, tokenizer))
    assert _KEY in {d.path: d.sections[0].text for d in reported.loaded.documents}["b.py"]


def test_secrets_of_documents_left_out_are_not_reported(tree: Path, tokenizer) -> None:
    (tree / "tests/test_a.py").write_text(f"TOKEN = '{_KEY}'\n" + "word\n" * 200)
    total = _survey(tree, tokenizer).tokens
    assert _survey(tree, tokenizer, total - 1, fit=True).secrets == ()


class _Refusing:
    """A tokenizer that fails on texts with a word."""

    def __init__(self, tokenizer, word: str) -> None:
        self._tokenizer = tokenizer
        self._word = word

    def _check(self, text: str) -> str:
        if self._word in text:
            raise UnicodeEncodeError("utf-8", text, 0, 1, "surrogates not allowed")
        return text

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(self._check(text))

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        return self._tokenizer.encode_with_offsets(self._check(text))

    def count(self, texts: list[str]) -> list[int]:
        return self._tokenizer.count([self._check(text) for text in texts])


def test_a_document_that_cannot_be_counted_is_skipped(tree: Path, tokenizer) -> None:
    (tree / "b.py").write_text("odd\n")
    found = _survey(tree, _Refusing(tokenizer, "odd"))
    assert [entry.path for entry in found.counted] == ["README.md", "a.py", "tests/test_a.py"]
    assert found.loaded.skipped[-1].path == "b.py"
    assert "surrogates not allowed" in found.loaded.skipped[-1].reason


def test_a_document_that_cannot_be_laid_out_is_skipped(tree: Path, tokenizer) -> None:
    (tree / "b.py").write_text("odd\n")
    found = _survey(tree, tokenizer)
    failed: list[Skipped] = []
    layout = lay_out(found.loaded, _Refusing(tokenizer, "odd"), failed)
    assert [entry.path for entry in failed] == ["b.py"]
    rest = found.without(failed)
    assert layout.token_ids == lay_out(rest.loaded, tokenizer).token_ids
    assert [entry.path for entry in rest.counted] == ["README.md", "a.py", "tests/test_a.py"]
    assert rest.tokens == len(layout)


def test_a_document_whose_secrets_cannot_be_searched_is_skipped(
    tree: Path, tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(document: Document) -> tuple[()]:
        if document.path == "b.py":
            raise RecursionError
        return ()

    monkeypatch.setattr(survey, "find_secrets", fail)
    found = _survey(tree, tokenizer, without_secrets=True)
    assert Skipped("b.py", "nested too deeply") in found.loaded.skipped
    assert "b.py" not in [entry.path for entry in found.counted]


def test_what_is_left_out_is_listed(tree: Path, tokenizer) -> None:
    (tree / "run.log").write_text("\r 1%\r 2%\rdone 3%\n\x1b[1mend\x1b[0m\n")
    counted = _survey(tree, tokenizer).counted
    listed = {entry["path"]: entry["left_out"] for entry in listing(counted, ())["documents"]}
    assert listed["run.log"] == ["progress steps (2)", "terminal codes (2)"]
    assert listed["a.py"] == []
