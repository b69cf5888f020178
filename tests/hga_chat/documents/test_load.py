import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hga_chat.documents import load, load_documents
from hga_chat.documents.formats import FORMATS, TEXT, Format
from hga_chat.documents.types import DocumentError, LoadedDocuments, LoadedFile, Section, Skipped

DATA = Path(__file__).parents[2] / "data"


def _texts(loaded: LoadedDocuments) -> dict[str, str]:
    return {d.path: "".join(s.text for s in d.sections) for d in loaded.documents}


def test_the_files_next_to_the_corpus() -> None:
    loaded = load_documents([str(DATA)], exclude=["*/", "expected.json"])
    assert [(d.path, d.format, len(d.sections)) for d in loaded.documents] == [
        ("README.md", "markdown", 2),
        ("labelled.pdf", "pdf", 3),
        ("latin1.txt", "text", 1),
        ("utf16.txt", "text", 1),
        ("windows.txt", "text", 1),
    ]
    assert loaded.skipped == (
        Skipped("binary.dat", "an ELF program or library"),
        Skipped("damaged.pdf", "damaged PDF: Stream has ended unexpectedly"),
        Skipped("empty.txt", "empty"),
        Skipped("encrypted.pdf", "encrypted PDF; save a copy without the password first"),
        Skipped("labelled.pdf", "page 2: no text (blank or only drawings)"),
        Skipped("scan.pdf", "no text on any of 2 pages (a scan?); run OCR on it first"),
    )
    texts = _texts(loaded)
    assert texts["windows.txt"] == "first line\nsecond line\n"
    assert texts["latin1.txt"] == "Die Brücke wurde 1894 eröffnet.\n"
    assert texts["utf16.txt"] == "Το κλειδί είναι κάτω από την πέτρα.\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("binary.dat", "an ELF program or library"),
        ("damaged.pdf", "damaged PDF"),
        ("empty.txt", "empty"),
        ("encrypted.pdf", "encrypted PDF"),
        ("scan.pdf", "no text on any of 2 pages"),
        ("missing.txt", "no such file or folder"),
    ],
)
def test_a_single_unreadable_file_is_an_error(name: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        load_documents([str(DATA / name)])
    assert str(caught.value).startswith(f"{DATA / name}: ")
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_among_others_is_skipped() -> None:
    loaded = load_documents([str(DATA / "empty.txt"), str(DATA / "latin1.txt")])
    assert [d.path for d in loaded.documents] == [str(DATA / "latin1.txt")]
    assert loaded.skipped == (Skipped(str(DATA / "empty.txt"), "empty"),)


def test_a_missing_path_among_several_is_an_error() -> None:
    with pytest.raises(DocumentError, match=r"nowhere: no such file or folder"):
        load_documents([str(DATA / "latin1.txt"), "nowhere"])


def test_a_folder_without_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(b"a\0\0")
    (tmp_path / "b.dat").write_bytes(b"b\0\0")
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_text(" \n\n")
    with pytest.raises(DocumentError, match=r"nothing to load \(skipped: binary: 2, empty: 2\)"):
        load_documents([str(tmp_path)])


def test_globs_that_leave_nothing_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DocumentError, match="nothing to load; see --include and --exclude"):
        load_documents([str(tmp_path)], include=["*.py"])


def test_files_over_the_limit_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "fits.txt").write_bytes(b"x" * 4_999_999 + b"\n")
    (tmp_path / "huge.txt").write_bytes(b"x" * 5_000_000 + b"\n")
    (tmp_path / "huge.html").write_bytes(b"<p>x" * 1_250_001)
    (tmp_path / "huge.zip").write_bytes(b"PK\x03\x04")
    os.truncate(tmp_path / "huge.zip", 100_000_001)
    loaded = load_documents([str(tmp_path)])
    assert [d.path for d in loaded.documents] == ["fits.txt"]
    assert loaded.skipped == (
        Skipped("huge.html", "larger than the limit of 5 MB"),
        Skipped("huge.txt", "larger than the limit of 5 MB"),
        Skipped("huge.zip", "larger than the limit of 100 MB"),
    )


class NeverHeardOfError(Exception):
    pass


class Panic(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NeverHeardOfError("odd\n\x1b[31m\ud83d"), "cannot be loaded: NeverHeardOfError: odd"),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "no"), "cannot be loaded: UnicodeEncodeError"),
        (KeyError("cells"), "cannot be loaded: KeyError: 'cells'"),
        (MemoryError(), "takes too much memory"),
        (RecursionError(), "nested too deeply"),
        (Panic("at src/lib.rs"), "cannot be loaded: Panic: at src/lib.rs"),
    ],
)
@pytest.mark.parametrize("kind", [*FORMATS, TEXT], ids=lambda kind: kind.name)
def test_a_reader_that_fails_names_the_file_and_the_rest_is_loaded(
    kind: Format, error: BaseException, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, data: bytes) -> LoadedFile:
        raise error

    failing = replace(kind, load=fail)
    monkeypatch.setattr(load, "format_of", lambda path, _: failing if path == "a" else TEXT)
    (tmp_path / "a").write_text("anything")
    (tmp_path / "z.txt").write_text("text")
    loaded = load_documents([str(tmp_path)])
    assert _texts(loaded) == {"z.txt": "text"}
    (skipped,) = loaded.skipped
    assert skipped.path == "a"
    assert skipped.reason.startswith(reason)
    assert "\n" not in skipped.reason
    assert skipped.reason.encode()


def test_an_interrupt_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: str, data: bytes) -> LoadedFile:
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "format_of", lambda *_: replace(TEXT, load=interrupt))
    (tmp_path / "a").write_text("anything")
    with pytest.raises(KeyboardInterrupt):
        load_documents([str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("lone \ud83d", "lone \ufffd"),
        ("pair \ud83d\ude00", "pair \U0001f600"),
        ("a\0b", "a\ufffdb"),
    ],
)
def test_whatever_a_reader_returns_can_be_encoded(
    text: str, valid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("text")
    section = Section("a.txt", f"label {text}", f"text {text}", None, None, f"page {text}")
    read = LoadedFile((section,), (f"note {text}",), None, (f"images {text}",))
    monkeypatch.setattr(load, "format_of", lambda *_: replace(TEXT, load=lambda *_: read))
    loaded = load_documents([str(tmp_path)])
    (document,) = loaded.documents
    (section,) = document.sections
    assert (section.label, section.text) == (f"label {valid}", f"text {valid}")
    assert (section.page, document.left_out) == (f"page {valid}", (f"images {valid}",))
    assert loaded.skipped == (Skipped("a.txt", f"note {valid}"),)


def test_a_log_that_was_truncated_while_it_was_written(tmp_path: Path) -> None:
    # logrotate/logrotate#363
    (tmp_path / "app.log").write_bytes(b"\0" * 6_000_000 + b"2025-01-01 ERROR disk 4711 full\n")
    (tmp_path / "zeros.img").write_bytes(b"\0" * 6_000_000)
    (tmp_path / "disk.img").write_bytes(b"\0" * 32_768 + bytes(range(256)) * 9)
    loaded = load_documents([str(tmp_path)])
    assert _texts(loaded) == {"app.log": "\ufffd2025-01-01 ERROR disk 4711 full\n"}
    assert loaded.skipped == (Skipped("disk.img", "binary"), Skipped("zeros.img", "binary"))


def test_files_are_named_as_given_and_folders_by_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x.py", "b/x.py", "b/deep/y.py", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    monkeypatch.chdir(tmp_path)
    loaded = load_documents(["./c.txt", "a", "b/"])
    assert list(_texts(loaded)) == ["c.txt", "a/x.py", "b/x.py", "b/deep/y.py"]
    assert list(_texts(load_documents(["b"]))) == ["x.py", "deep/y.py"]
    excluded = load_documents(["a", "b"], exclude=["b/deep/y.py"])
    assert list(_texts(excluded)) == ["a/x.py", "b/x.py"]


def test_no_file_is_loaded_twice(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "link.txt").symlink_to("a.txt")
    paths = [str(tmp_path / "a.txt"), str(tmp_path / "link.txt"), str(tmp_path)]
    assert len(load_documents(paths).documents) == 1


def test_a_named_file_is_loaded_even_if_hidden_or_ignored(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".notes").write_text("hidden")
    (tmp_path / "a.log").write_text("ignored")
    loaded = load_documents([str(tmp_path / ".notes"), str(tmp_path / "a.log")])
    assert list(_texts(loaded).values()) == ["hidden", "ignored"]


def test_exclude_also_applies_to_named_files(tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("text")
    paths = [str(tmp_path / "a.md"), str(tmp_path / "b.md")]
    loaded = load_documents(paths, exclude=["b.md"])
    assert list(_texts(loaded)) == paths[:1]
    assert loaded.skipped == (Skipped(paths[1], "excluded by --exclude"),)


def test_standard_input() -> None:
    loaded = load_documents(["-"], stdin=io.BytesIO(b"piped\r\ntext\r\n"))
    assert _texts(loaded) == {"-": "piped\ntext\n"}
    assert loaded.documents[0].format == "text"


def test_the_end_of_typed_input_is_the_end() -> None:
    class Typed(io.BytesIO):
        """A terminal: after Ctrl+D it can be read on."""

        def read(self, size: int | None = -1) -> bytes:
            assert self.tell() < len(self.getvalue()), "would wait for another Ctrl+D"
            return super().read(size)

    assert _texts(load_documents(["-"], stdin=Typed(b"typed\ntext\n"))) == {"-": "typed\ntext\n"}


def test_a_pdf_on_standard_input(make_pdf) -> None:
    loaded = load_documents(["-"], stdin=io.BytesIO(make_pdf(["piped page"])))
    assert loaded.documents[0].format == "pdf"
    assert loaded.documents[0].sections[0].text == "piped page"


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"\0\1\2", "binary")])
def test_unreadable_standard_input(data: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=f"^-: {reason}$"):
        load_documents(["-"], stdin=io.BytesIO(data))


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DocumentError, match="not a regular file"):
        load_documents([str(tmp_path / "pipe")])


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, while the process is not root, who may read everything."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            os.chown(name, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if is_root:
                os.seteuid(0)


def test_files_and_folders_without_permission_are_skipped(unprivileged: Path) -> None:
    (unprivileged / "open.txt").write_text("text")
    (unprivileged / "locked.txt").write_text("text")
    (unprivileged / "locked.txt").chmod(0)
    (unprivileged / "folder").mkdir(mode=0)
    loaded = load_documents([str(unprivileged)])
    assert list(_texts(loaded)) == ["open.txt"]
    assert loaded.skipped == (
        Skipped("folder", "permission denied"),
        Skipped("locked.txt", "permission denied"),
    )
    for name in ("locked.txt", "folder"):
        with pytest.raises(DocumentError, match=f"{name}: permission denied"):
            load_documents([str(unprivileged / name)])
    (unprivileged / "folder").chmod(0o700)
