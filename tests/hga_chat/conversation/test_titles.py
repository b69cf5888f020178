"""What a new session is called."""

import pytest

from hga_chat.conversation.titles import title_of
from hga_chat.documents import Document, Section


def document(path, text="", title=""):
    return Document(path, "text", (Section(path, path, text, 1, 1, None),), title=title)


def test_a_book_has_its_own_title_and_a_file_its_name(tmp_path):
    path = str(tmp_path / "moby30.epub")
    assert title_of([path], [document("moby30.epub", title="Moby-Dick")]) == "Moby-Dick"
    assert title_of([path], [document("moby30.epub")]) == "moby30.epub"
    assert title_of(["-"], [document("-")]) == "standard input"


def test_of_several_paths_the_first_is_named(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.md", "b.md", "c.md")]
    assert title_of(paths, [document("a.md", title="A")]) == "a.md and 2 more"


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("pyproject.toml", '[project]\nname = "click"\n', "click"),
        ("pyproject.toml", "[tool.ruff]\n", "main"),
        ("pyproject.toml", "[project\n", "main"),
        ("Cargo.toml", '[package]\nname = "ripgrep"\n', "ripgrep"),
        ("package.json", '{"name": "vite"}', "vite"),
        ("package.json", "[]", "main"),
        ("package.json", '{"name": 3}', "main"),
        ("go.mod", "module github.com/spf13/cobra\n\ngo 1.15\n", "cobra"),
        ("go.mod", "module github.com/jackc/pgx/v5\n", "pgx"),
        ("below/pyproject.toml", '[project]\nname = "other"\n', "main"),
        ("book.pdf", "", "main"),
    ],
)
def test_a_repository_has_the_name_of_its_manifest_else_of_its_folder(
    tmp_path, path, text, expected
):
    root = tmp_path / "main"
    root.mkdir()
    found = [document("README.md", "# Hello"), document(path, text, title="Book")]
    assert title_of([str(root)], found) == expected


def test_titles_are_one_line_of_text_that_a_terminal_can_show(tmp_path):
    path = str(tmp_path / "a.html")
    assert title_of([path], [document("a.html", title="\x1b]0;owned\x07 x")]) == "␛]0;owned␇ x"
    long = title_of([path], [document("a.html", title="word " * 30)])
    assert len(long) <= 60
    assert long.endswith("word…")
