import os
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


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")


@pytest.fixture(params=["git", "our own rules"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git lists the files, or it is not there."""
    if request.param != "git":
        monkeypatch.setattr(shutil, "which", lambda _: None)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _listed_by_git(folder: Path) -> set[str]:
    listed = _git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    return {path for path in listed.split("\0") if path and not path.endswith(".gitignore")}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository of a user without settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/.config"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    folder = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@needs_git
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("seed", range(12))
def test_random_trees_are_listed_as_git_lists_them(seed: int, repository: Path) -> None:
    choose = random.Random(seed)
    for _ in range(16):
        parents = choose.choices(["a", "b", "build"], k=choose.randint(0, 3))
        _write(repository.joinpath(*parents, choose.choice(["x.py", "y.txt", "keep.log", "b2"])))
    folders = [p for p in sorted(repository.rglob("*")) if p.is_dir() and ".git" not in p.parts]
    for folder in [repository, *choose.sample(folders, min(2, len(folders)))]:
        _write(folder / ".gitignore", "\n".join(choose.choices(_PATTERNS.split(), k=4)))
    assert set(_paths(repository)) == _listed_by_git(repository)
    inside = choose.choice(folders)
    ignored = subprocess.run(["git", "-C", repository, "check-ignore", "-q", inside], check=False)
    if ignored.returncode:  # a folder that is ignored is loaded if it is named
        assert set(_paths(inside)) == _listed_by_git(inside)


@needs_git
@pytest.mark.usefixtures("either_way")
def test_ignore_files_of_the_user_and_the_repository(repository: Path) -> None:
    _write(Path.home() / ".gitconfig", "[core]\n\texcludesFile = ~/global\n")
    _write(Path.home() / "global", "*.mine\n!*.both\n")
    _write(repository / ".git/info/exclude", "*.private\n*.both\n")
    for name in ("a.mine", "b.private", "c.both", "d.txt"):
        _write(repository / name)
    assert _paths(repository) == ["d.txt"]


@needs_git
@pytest.mark.usefixtures("either_way")
def test_the_users_default_ignore_file(repository: Path) -> None:
    _write(Path.home() / ".config/git/ignore", "*.mine\n")
    for name in ("a.mine", "b.txt"):
        _write(repository / "sub" / name)
    assert _paths(repository) == ["sub/b.txt"]
    assert _paths(repository / "sub") == ["b.txt"]


@needs_git
@pytest.mark.usefixtures("either_way")
def test_a_byte_order_mark_is_not_part_of_the_first_pattern(repository: Path) -> None:
    # BurntSushi/ripgrep#2177
    (repository / ".gitignore").write_bytes(b"\xef\xbb\xbfsecret_dump.txt\r\nother.txt\r\n")
    for name in ("secret_dump.txt", "other.txt", "README.md"):
        _write(repository / name)
    assert _paths(repository) == ["README.md"]


@needs_git
def test_what_is_tracked_is_loaded_although_ignored_or_hidden(repository: Path) -> None:
    # yamadashy/repomix#650, solidiquis/erdtree#239
    _write(repository / ".gitignore", "lib/\n*.log\n")
    for name in ("lib/core.py", "lib/local.py", "kept.log", "app.log", "README.md", ".env"):
        _write(repository / name)
    _write(repository / ".github/workflows/ci.yml")
    _write(repository / ".github/workflows/draft.yml")
    _write(repository / "pkg.egg-info/PKG-INFO")
    _git(repository, "add", "-f", "lib/core.py", "kept.log", ".github/workflows/ci.yml")
    _git(repository, "add", "-f", "pkg.egg-info")
    found, skipped = walk(repository, "", Globs.parse([], []))
    paths = {entry.path for entry in found}
    assert paths == {"README.md", ".github/workflows/ci.yml", "lib/core.py", "kept.log"}
    assert [(entry.path, entry.reason.split(";")[0]) for entry in skipped] == [
        ("pkg.egg-info/", "a cache"),
        (".env", "hidden"),
        (".github/workflows/draft.yml", "hidden"),
    ]
    # A folder that is ignored is loaded if it is named.
    assert sorted(_paths(repository / "lib")) == ["core.py", "local.py"]


@needs_git
@pytest.mark.usefixtures("either_way")
def test_worktrees_and_submodules_have_their_own_rules(repository: Path, tmp_path: Path) -> None:
    _write(repository / ".gitignore", "*.log\n")
    _write(repository / "a.py")
    _git(repository, "add", ".")
    _git(repository, "commit", "-qm", "a")
    _write(repository / ".git/info/exclude", "*.private\n")
    other = tmp_path / "other"
    _git(repository, "worktree", "add", "-q", str(other))
    subprocess.run(["git", "init", "-q", str(tmp_path / "module")], check=True)
    _write(tmp_path / "module/.gitignore", "*.tmp\n")
    _git(tmp_path / "module", "add", ".")
    _git(tmp_path / "module", "commit", "-qm", "m")
    _git(other, "submodule", "--quiet", "add", str(tmp_path / "module"), "sub")
    for folder in (other, other / "sub"):
        for name in ("b.log", "b.private", "b.tmp", "b.txt"):
            _write(folder / name)
    found = {path for path in _paths(other) if ".git" not in path}
    assert found == {"a.py", "b.tmp", "b.txt", "sub/b.log", "sub/b.private", "sub/b.txt"}
    found = {path for path in _paths(other / "sub") if ".git" not in path}
    assert found == {"b.log", "b.private", "b.txt"}


@needs_git
@pytest.mark.usefixtures("either_way")
def test_a_link_to_an_ignore_file_is_not_followed(repository: Path, tmp_path: Path) -> None:
    _write(tmp_path / "outside", "*\n")
    (repository / ".gitignore").symlink_to(tmp_path / "outside")
    _write(repository / "a.txt")
    assert _paths(repository) == ["a.txt"]


@needs_git
def test_the_configuration_of_a_repository_runs_nothing(repository: Path, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    _write(hook, f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    _git(repository, "config", "core.fsmonitor", str(hook))
    _write(repository / "a.txt")
    assert _paths(repository) == ["a.txt"]
    assert not (tmp_path / "ran").exists()


@needs_git
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_another_user_is_listed_by_git(repository: Path) -> None:
    _write(repository / ".gitignore", "lib/\n")
    _write(repository / "lib/core.py")
    _git(repository, "add", "-f", "lib/core.py")
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 65534, 65534)
    assert _paths(repository) == ["lib/core.py"]


@needs_git
def test_the_environment_of_a_hook_does_not_count(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    _write(repository / ".gitignore", "*.log\n")
    _write(repository / "a.log")
    _write(repository / "a.txt")
    assert _paths(repository) == ["a.txt"]


@needs_git
def test_a_damaged_repository_inside_another_has_its_own_rules(repository: Path) -> None:
    _write(repository / ".gitignore", "*.txt\n")
    _write(repository / "inner/.git/HEAD", "nothing\n")
    _write(repository / "inner/.gitignore", "*.py\n")
    for name in ("a.txt", "a.py"):
        _write(repository / "inner" / name)
    assert _paths(repository / "inner") == ["a.txt"]
