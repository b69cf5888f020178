"""Patterns of ignore files against ``git check-ignore``."""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from hga_chat.documents.tree.wildmatch import patterns_of
from tools.stress.fuzz_readers import ignored_by_git, is_ignored

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")

_PARTS = [
    *("a", "b", "A", "1", ".", "é", "#", "!", " ", "\t", "\r", "-", "^", "]", "\\", "[", "?", "/"),
    *("*", "**", "***", "**/", "/**", "*a", "[a-b]", "[!a]", "[^b]", "[]a]", "[a", "[\\", "[:"),
    *("[:alpha:]", "[[:digit:]]", "[[:space:]]", "[[:odd:]]", "[a-", "[b-a]", "[A-z]", "\\#"),
    *("\\!", "\\ ", "\\*", "\udcff", "\0"),
]
_NAMES = [
    *("a", "b", "ab", "A", "aab", "a b", "é", "a ", " ", "#", "!", "[a]", "a.b", "1", "-", "]"),
    *("\\", "a\t", "a\r", "b1", "\udcff", "*"),
]


@needs_git
@pytest.mark.parametrize("seed", range(4))
def test_any_lines_match_what_git_says(seed: int, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    choose = random.Random(seed)
    hits = 0
    for _ in range(60):
        lines = ["".join(choose.choices(_PARTS, k=choose.randint(1, 6))) for _ in range(3)]
        mark = b"\xef\xbb\xbf" if choose.random() < 0.2 else b""
        content = mark + os.fsencode("\n".join(lines)) + choose.choice([b"", b"\n", b"\r\n"])
        (tmp_path / ".gitignore").write_bytes(content)
        paths = sorted(
            {
                os.fsencode("/".join(choose.choices(_NAMES, k=choose.randint(1, 3))))
                for _ in range(12)
            }
        )
        ignored = ignored_by_git(tmp_path, paths)
        patterns = patterns_of(content)
        assert {path for path in paths if is_ignored(patterns, path)} == ignored, content
        hits += len(ignored)
    assert hits > 20


@pytest.mark.parametrize(
    ("content", "ignored", "kept"),
    [
        (b"\xef\xbb\xbfsecret.txt\r\nother.txt\r\n", [b"secret.txt", b"other.txt"], [b"a"]),
        (b"a.txt  \nb.txt\\ \nc.txt\t\n", [b"a.txt", b"b.txt "], [b"b.txt", b"c.txt"]),
        (b"\\#a\n#b\n\\!c\n", [b"#a", b"!c"], [b"b", b"c"]),
        (b"caf\xe9.txt\n", [b"caf\xe9.txt"], ["café.txt".encode()]),
        (b"[a-c]x\n[!a]y\n[[:digit:]]z\n", [b"bx", b"by", b"7z"], [b"dx", b"ay", b"az"]),
        (b"a/**/b\n**/c\nd/**\n", [b"a/b", b"a/x/y/b", b"c", b"x/c", b"d/x/y"], [b"d", b"xc"]),
        (b"Case\n", [b"Case"], [b"case"]),
        (b"/top\n", [b"top"], [b"x/top"]),
    ],
)
def test_lines_as_gitignore_5_has_them(
    content: bytes, ignored: list[bytes], kept: list[bytes]
) -> None:
    patterns = patterns_of(content)
    assert [path for path in ignored if not is_ignored(patterns, path)] == []
    assert [path for path in kept if is_ignored(patterns, path)] == []


@pytest.mark.parametrize(
    "glob",
    [b"*a" * 30 + b"b", b"**/a/" * 20 + b"b", b"**/*a*a*a/" * 9 + b"b", b"?*" * 40 + b"b"],
)
def test_hostile_globs_take_no_longer_than_others(glob: bytes) -> None:
    (pattern,) = patterns_of(glob)
    started = time.process_time()
    for path in (b"a" * 255, b"/".join([b"a"] * 1500), b"/".join([b"aaaaaa"] * 500)):
        assert not pattern.matches(path, path.rpartition(b"/")[2], is_folder=False)
    assert time.process_time() - started < 5


def test_case_is_ignored_if_asked() -> None:
    (pattern,) = patterns_of(b"Build\n", ignore_case=True)
    assert pattern.matches(b"build", b"build", is_folder=False)


def test_patterns_for_folders_do_not_match_files() -> None:
    (pattern,) = patterns_of(b"build/\n")
    assert pattern.matches(b"build", b"build", is_folder=True)
    assert not pattern.matches(b"build", b"build", is_folder=False)
