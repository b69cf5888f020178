import os
from pathlib import Path

import pytest

from hga_chat.documents import walk as walk_module
from hga_chat.documents.ignore import Globs
from hga_chat.documents.types import DocumentError
from hga_chat.documents.walk import walk

EVERYTHING = Globs.parse([], [])


def _write(path: Path, text: str = "text\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_reading_order(tmp_path: Path) -> None:
    expected = [
        "README.md",
        "pyproject.toml",
        "a.py",
        "z.py",
        "docs/readme.rst",
        "docs/a.rst",
        "docs/deep/b.rst",
        "src/a.py",
        "src/LICENSE",
        "CHANGELOG.md",
        "LICENSE",
    ]
    for name in reversed(expected):
        _write(tmp_path / name)
    found, skipped = walk(tmp_path, "", EVERYTHING)
    assert [entry.path for entry in found] == expected
    assert not skipped


def test_folders_nobody_reads_are_left_out(tmp_path: Path) -> None:
    for name in (
        "node_modules/x/index.js",
        "pkg/__pycache__/x.py",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "lib/site-packages/x.py",
        "pkg.egg-info/SOURCES.txt",
    ):
        _write(tmp_path / name)
    _write(tmp_path / "main.py")
    found, skipped = walk(tmp_path, "", EVERYTHING)
    assert [entry.path for entry in found] == ["main.py"]
    assert not skipped


def test_such_a_folder_named_itself_is_read(tmp_path: Path) -> None:
    _write(tmp_path / "site-packages/click/core.py")
    found, _ = walk(tmp_path / "site-packages", "", EVERYTHING)
    assert [entry.path for entry in found] == ["click/core.py"]


def test_generated_files_are_named(tmp_path: Path) -> None:
    for name in ("package-lock.json", "app.min.js", "app.js"):
        _write(tmp_path / name)
    found, skipped = walk(tmp_path, "", EVERYTHING)
    assert [entry.path for entry in found] == ["app.js"]
    assert [entry.path for entry in skipped] == ["app.min.js", "package-lock.json"]
    found, skipped = walk(tmp_path, "", Globs.parse(["*.json"], []))
    assert [entry.path for entry in found] == ["package-lock.json"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    _write(tmp_path / "outside/secret.txt")
    tree = tmp_path / "tree"
    _write(tree / "a.txt")
    (tree / "inside.txt").symlink_to("a.txt")
    (tree / "out.txt").symlink_to(tmp_path / "outside/secret.txt")
    (tree / "out").symlink_to(tmp_path / "outside")
    (tree / "cycle").symlink_to(tree)
    (tree / "self").symlink_to("self")
    found, skipped = walk(tree, "", EVERYTHING)
    assert [entry.path for entry in found] == ["a.txt"]
    assert [(entry.path, entry.reason) for entry in skipped] == [
        ("out", "link to somewhere outside the folder"),
        ("out.txt", "link to somewhere outside the folder"),
    ]


def test_a_linked_folder_named_itself_is_read(tmp_path: Path) -> None:
    _write(tmp_path / "real/a.txt")
    (tmp_path / "link").symlink_to("real")
    found, _ = walk(tmp_path / "link", "link/", EVERYTHING)
    assert [entry.path for entry in found] == ["link/a.txt"]


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found, skipped = walk(tmp_path, "", EVERYTHING)
    assert not found
    assert [(entry.path, entry.reason) for entry in skipped] == [("pipe", "not a regular file")]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    (found,), _ = walk(tmp_path, "", EVERYTHING)
    assert found.path == "caf\ufffd.txt"
    assert found.file.read_text() == "text"


def test_deep_trees(tmp_path: Path) -> None:
    folders = [tmp_path]
    for _ in range(1100):  # deeper than Python's call stack
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    file = folders[-1] / "f"
    file.write_text("text")
    (found,), _ = walk(tmp_path, "", EVERYTHING)
    assert found.file == file
    file.unlink()
    for folder in reversed(folders[1:]):
        folder.rmdir()


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_module, "MAX_FILES", 3)
    for index in range(4):
        _write(tmp_path / str(index))
    with pytest.raises(DocumentError, match="more than 3 files"):
        walk(tmp_path, "", EVERYTHING)
