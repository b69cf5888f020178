import os
from pathlib import Path

import pytest

from hga_chat.documents.tree import walk as walk_module
from hga_chat.documents.tree.ignore import Globs
from hga_chat.documents.tree.walk import walk
from hga_chat.documents.types import DocumentError

EVERYTHING = Globs.parse([], [])


def _write(path: Path, text: str = "text\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_loading_order(tmp_path: Path) -> None:
    root = tmp_path / "My-App-1.2"
    expected = [
        "README.md",
        "pyproject.toml",
        "src/my_app/__init__.py",
        "src/my_app/__main__.py",
        "a.py",
        "z.py",
        "docs/readme.rst",
        "docs/a.rst",
        "docs/deep/b.rst",
        "examples/app.py",
        "src/LICENSE",
        "src/my_app/engine.py",
        "src/my_app/deep/__init__.py",
        "src/my_app/test_engine.py",
        "tests/conftest.py",
        "tests/main.py",
        "tests/README.md",
        "LICENSE",
        "CHANGELOG.md",
        "docs/changes.rst",
        "logs/run.log",
    ]
    for name in reversed(expected):
        _write(root / name)
    found, skipped = walk(root, "", EVERYTHING)
    assert [entry.path for entry in found] == expected
    assert not skipped


def test_folders_not_written_by_the_authors_are_skipped_with_a_reason(tmp_path: Path) -> None:
    for name in (
        "node_modules/x/index.js",
        "pkg/__pycache__/x.py",
        "pkg.egg-info/SOURCES.txt",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        "lib/site-packages/x.py",
        "cache/CACHEDIR.TAG",
        "third_party/zlib/zlib.c",
        "assets/vendor/jquery.js",
        "build/lib/x.py",
        "build/bdist.linux-x86_64/x.py",
        "dist/app-1.0.tar.gz",
    ):
        _write(tmp_path / name)
    _write(tmp_path / "main.py")
    found, skipped = walk(tmp_path, "", EVERYTHING)
    assert [entry.path for entry in found] == ["main.py"]
    hint = "; name it with --include to load it"
    assert {entry.path: entry.reason.removesuffix(hint) for entry in skipped} == {
        "assets/vendor/": "vendored code",
        "build/": "build output",
        "cache/": "a cache",
        "dist/": "build output",
        "env/": "a virtual environment",
        "lib/site-packages/": "installed dependencies",
        "node_modules/": "installed dependencies",
        "third_party/": "vendored code",
    }
    found, skipped = walk(tmp_path, "", Globs.parse(["third_party/", "dist/*.gz"], []))
    assert [entry.path for entry in found] == ["dist/app-1.0.tar.gz", "third_party/zlib/zlib.c"]
    found, _ = walk(tmp_path, "", Globs.parse(["*.c", "*.py"], []))
    assert [entry.path for entry in found] == ["main.py"]


def test_folders_with_similar_names_are_loaded(tmp_path: Path) -> None:
    for name in ("build/release.py", "dist/notes.md", "shop/vendor/__init__.py"):
        _write(tmp_path / name)
    found, skipped = walk(tmp_path, "", EVERYTHING)
    assert len(found) == 3
    assert not skipped
    _write(tmp_path / "shop/vendor/vendor.txt")
    _, (vendored,) = walk(tmp_path, "", EVERYTHING)
    assert vendored.path == "shop/vendor/"


def test_submodules_that_are_not_checked_out_are_reported(tmp_path: Path) -> None:
    paths = ("libs/there", "libs/missing", "../outside", "/etc")
    text = "".join(f'[submodule "{n}"]\n\tpath = {p}\n\turl = u\n' for n, p in enumerate(paths))
    _write(tmp_path / "tree/.gitmodules", text)
    _write(tmp_path / "tree/libs/there/.git", "gitdir: ../../.git/modules/there\n")
    _write(tmp_path / "tree/libs/there/a.py")
    (tmp_path / "tree/libs/missing").mkdir()
    (tmp_path / "tree/empty").mkdir()
    (tmp_path / "outside").mkdir()
    found, skipped = walk(tmp_path / "tree", "", EVERYTHING)
    assert [entry.path for entry in found] == ["libs/there/a.py"]
    assert [entry.path for entry in skipped] == ["libs/missing/"]
    assert "git submodule update" in skipped[0].reason


def test_a_skipped_folder_is_loaded_if_named(tmp_path: Path) -> None:
    _write(tmp_path / "site-packages/click/core.py")
    found, _ = walk(tmp_path / "site-packages", "", EVERYTHING)
    assert [entry.path for entry in found] == ["click/core.py"]


def test_generated_files_are_reported(tmp_path: Path) -> None:
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
        ("out", "a link to outside the folder"),
        ("out.txt", "a link to outside the folder"),
    ]


def test_a_linked_folder_is_loaded_if_named(tmp_path: Path) -> None:
    _write(tmp_path / "real/a.txt")
    (tmp_path / "link").symlink_to("real")
    found, _ = walk(tmp_path / "link", "link/", EVERYTHING)
    assert [entry.path for entry in found] == ["link/a.txt"]


def test_a_pipe_in_a_folder_is_not_opened(tmp_path: Path) -> None:
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
