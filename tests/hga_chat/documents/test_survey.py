import random
import string
from pathlib import Path

import pytest

from hga_chat.documents import iter_documents, lay_out, survey_documents
from hga_chat.documents.types import Skipped

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
        Skipped("data.bin", "binary"),
        Skipped("tests/test_a.py", "left out by --fit: a test"),
    )
    assert found.tokens == sum(whole.values()) - whole["tests/test_a.py"]


def test_fit_changes_nothing_if_everything_fits(tree: Path, tokenizer) -> None:
    assert _survey(tree, tokenizer, fit=True) == _survey(tree, tokenizer)


def test_documents_that_must_stay_are_counted_even_if_they_do_not_fit(
    tree: Path, tokenizer
) -> None:
    found = _survey(tree, tokenizer, 10, fit=True)
    assert [d.path for d in found.counted] == ["README.md"]
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
