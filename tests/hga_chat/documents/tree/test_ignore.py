import random
import shutil
import subprocess
from pathlib import Path

import pytest

from hga_chat.documents.tree.ignore import Globs, IgnoreRules, rules_around
from hga_chat.documents.tree.walk import walk
from hga_chat.documents.types import DocumentError


def _write(path: Path, text: str = "text\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _paths(root: Path, *include: str, exclude: tuple[str, ...] = ()) -> list[str]:
    return [found.path for found in walk(root, "", Globs.parse(include, exclude))[0]]


def test_nested_ignore_files_and_negation(tmp_path: Path) -> None:
    _write(tmp_path / ".gitignore", "*.log\n/build/\ndata/*\n!data/keep.csv\n")
    _write(tmp_path / "logs/.gitignore", "!important.log\nsecret.txt\n")
    for name in (
        "app.log",
        "build/out.py",
        "src/build/out.py",
        "data/big.csv",
        "data/keep.csv",
        "logs/important.log",
        "logs/other.log",
        "logs/secret.txt",
        "secret.txt",
    ):
        _write(tmp_path / name)
    assert _paths(tmp_path) == [
        "secret.txt",
        "data/keep.csv",
        "src/build/out.py",
        "logs/important.log",
    ]


def test_nothing_in_an_ignored_folder_can_be_included_again(tmp_path: Path) -> None:
    _write(tmp_path / ".gitignore", "out/\n!out/keep.txt\n")
    _write(tmp_path / "out/keep.txt")
    _write(tmp_path / "in.txt")
    assert _paths(tmp_path) == ["in.txt"]


def test_broken_lines_are_skipped(tmp_path: Path) -> None:
    _write(tmp_path / ".gitignore", "!\n\\\n[z-a]\n# comment\n\n*.tmp  \n")
    _write(tmp_path / "a.tmp")
    _write(tmp_path / "b.txt")
    assert _paths(tmp_path) == ["b.txt"]


def test_ignore_files_of_the_repository_around_a_folder_apply(tmp_path: Path) -> None:
    _write(tmp_path / ".git/info/exclude", "*.private\n")
    _write(tmp_path / ".gitignore", "*.gen\n/src/vendor/\n")
    for name in ("a.py", "a.gen", "a.private", "vendor/b.py"):
        _write(tmp_path / "src" / name)
    assert _paths(tmp_path / "src") == ["a.py"]


def test_an_ignored_folder_is_loaded_if_named(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    _write(tmp_path / ".gitignore", "build/\n")
    _write(tmp_path / "build/lib/a.py")
    assert rules_around(tmp_path / "build") == IgnoreRules()
    assert _paths(tmp_path / "build") == ["lib/a.py"]
    assert _paths(tmp_path / "build/lib") == ["a.py"]


def test_a_nested_repository_has_its_own_rules(tmp_path: Path) -> None:
    _write(tmp_path / ".gitignore", "*.txt\n")
    _write(tmp_path / "inner/.git/info/exclude", "*.private\n")
    _write(tmp_path / "inner/.gitignore", "*.log\n")
    _write(tmp_path / "linked/.git", "gitdir: ../.git/modules/linked\n")
    _write(tmp_path / "linked/.gitignore", "*.py\n")
    for name in ("a.txt", "a.log", "a.private", "a.py"):
        for folder in ("", "inner", "linked"):
            _write(tmp_path / folder / name)
    assert sorted(_paths(tmp_path)) == [
        "a.log",
        "a.private",
        "a.py",
        "inner/a.py",
        "inner/a.txt",
        "linked/a.log",
        "linked/a.private",
        "linked/a.txt",
    ]


def test_links_to_ignore_files_are_not_followed(tmp_path: Path) -> None:
    _write(tmp_path / "outside", "*\n")
    _write(tmp_path / "tree/a.txt")
    (tmp_path / "tree/.gitignore").symlink_to("../outside")
    assert _paths(tmp_path / "tree") == ["a.txt"]


def test_include_and_exclude(tmp_path: Path) -> None:
    for name in ("a.py", "a.md", "src/b.py", "src/b.md", "tests/c.py"):
        _write(tmp_path / name)
    assert _paths(tmp_path, "*.py") == ["a.py", "src/b.py", "tests/c.py"]
    assert _paths(tmp_path, "*.py", exclude=("tests/",)) == ["a.py", "src/b.py"]
    assert _paths(tmp_path, "src") == ["src/b.md", "src/b.py"]
    assert _paths(tmp_path, "./src/*.md") == ["src/b.md"]
    assert _paths(tmp_path, exclude=("*.md", "!a.md")) == [
        "a.md",
        "a.py",
        "src/b.py",
        "tests/c.py",
    ]


def test_hidden_files_are_loaded_only_if_named(tmp_path: Path) -> None:
    for name in (".env", ".github/workflows/ci.yml", "a.yml", "src/.hidden/b.yml"):
        _write(tmp_path / name)
    assert _paths(tmp_path) == ["a.yml"]
    assert _paths(tmp_path, "*.yml") == ["a.yml"]
    assert _paths(tmp_path, "*.yml", ".github/") == ["a.yml", ".github/workflows/ci.yml"]
    assert _paths(tmp_path, ".env") == [".env"]


def test_a_malformed_glob_is_reported() -> None:
    with pytest.raises(DocumentError, match=r"--exclude \[z-a\]: not a valid glob"):
        Globs.parse([], ["[z-a]"])


_PATTERNS = (
    "*.py !x.py build/ /build build/* !build/keep.log * !*/ !*.txt a/** !a/b **/b a/b/ !a/b/ "
    "*.log !keep.log /a/* b !b/ a/*/x.py **/build/** !**/keep.log #c \\!x a/ !a/ [xy].* ?.txt "
    "!/a/x.py a/**/ !a/**/ x.py/ a*/ ** **/ !**"
)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
@pytest.mark.parametrize("seed", range(12))
def test_random_trees_are_listed_as_git_lists_them(seed: int, tmp_path: Path) -> None:
    choose = random.Random(seed)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for _ in range(16):
        parents = choose.choices(["a", "b", "build"], k=choose.randint(0, 3))
        _write(tmp_path.joinpath(*parents, choose.choice(["x.py", "y.txt", "keep.log", "b2"])))
    folders = [p for p in sorted(tmp_path.rglob("*")) if p.is_dir() and ".git" not in p.parts]
    for folder in [tmp_path, *choose.sample(folders, min(2, len(folders)))]:
        _write(folder / ".gitignore", "\n".join(choose.choices(_PATTERNS.split(), k=4)))
    command = ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = {p for p in listed.split("\0") if p and not p.endswith(".gitignore")}
    assert set(_paths(tmp_path)) == expected
