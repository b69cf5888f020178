from hga_chat.documents.budget import over_budget, token_counts
from hga_chat.documents.layout import lay_out
from hga_chat.documents.text import read_text
from hga_chat.documents.types import Document, LoadedDocuments


def _layout(tokenizer, sizes: dict[str, int]):
    documents = [
        Document(path, "text", read_text(path, b"word\n" * words).sections)
        for path, words in sizes.items()
    ]
    return lay_out(LoadedDocuments(tuple(documents), ()), tokenizer)


def test_counts_sum_to_the_whole(tokenizer) -> None:
    layout = _layout(tokenizer, {"a": 10, "b": 500})
    counts = token_counts(layout)
    assert [path for path, _ in counts] == ["a", "b"]
    assert sum(tokens for _, tokens in counts) == len(layout)
    assert counts[1][1] > 1000  # a word and a line end each


def test_within_the_budget(tokenizer) -> None:
    layout = _layout(tokenizer, {"a": 10})
    assert over_budget(layout, len(layout)) is None


def test_the_largest_files_are_named_and_excluded(tokenizer) -> None:
    layout = _layout(tokenizer, {"small": 10, "src/[x]*.py": 300, "huge.txt": 900, "mid": 50})
    report = over_budget(layout, 400)
    assert report is not None
    assert (report.total, report.budget) == (len(layout), 400)
    assert [path for path, _ in report.largest] == ["huge.txt", "src/[x]*.py", "mid", "small"]
    assert report.exclude == ("huge.txt", r"src/\[x\]\*.py")
    assert f"{len(layout):,} tokens are over the budget of 400; largest: huge.txt (" in str(report)
    assert "--exclude 'huge.txt'" in str(report)


def test_one_file_over_the_budget_has_nothing_to_exclude(tokenizer) -> None:
    report = over_budget(_layout(tokenizer, {"book.txt": 900}), 100)
    assert report is not None
    assert report.exclude == ()
    assert str(report).endswith("Name fewer files or a smaller part")


def test_a_namesake_in_a_folder_is_kept(tokenizer) -> None:
    report = over_budget(_layout(tokenizer, {"a.py": 900, "lib/a.py": 10, "b.py": 10}), 200)
    assert report is not None
    assert report.exclude == ("/a.py",)
