import io
import time
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.constants import PageLabelStyle
from pypdf.generic import DecodedStreamObject, NameObject

from hga_chat.documents.pdf import reader as pdf
from hga_chat.documents.pdf.reader import load_pdf
from hga_chat.documents.types import UnreadableError


def test_one_section_per_page(make_pdf) -> None:
    loaded = load_pdf("a.pdf", make_pdf(["First page\nwith two lines", "Second page"]))
    assert [(s.label, s.page, s.text) for s in loaded.sections] == [
        ("page 1", "1", "First page\nwith two lines"),
        ("page 2", "2", "Second page"),
    ]
    assert loaded.sections[0].start_line is None
    assert not loaded.notes


@pytest.mark.parametrize(
    ("stated", "title"),
    [
        ("The Art of Unix", "The Art of Unix"),
        ("Reading\n  slowly", "Reading slowly"),
        ("Microsoft Word - draft.doc", ""),
        ("thesis_final.tex", ""),
        ("untitled", ""),
        ("(anonymous)", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_title_is_the_stated_one_unless_it_is_a_file_name(make_pdf, stated, title) -> None:
    def state(writer: PdfWriter) -> None:
        if stated is not None:
            writer.add_metadata({"/Title": stated})

    assert load_pdf("a.pdf", make_pdf(["Text"], state)).title == title


def test_page_labels(make_pdf) -> None:
    def label(writer: PdfWriter) -> None:
        writer.set_page_label(0, 1, style=PageLabelStyle.LOWERCASE_ROMAN)
        writer.set_page_label(2, 3, style=PageLabelStyle.DECIMAL, start=1)
        writer.set_page_label(4, 4, style=PageLabelStyle.DECIMAL, prefix="A-", start=7)

    sections = load_pdf("a.pdf", make_pdf(["one", "two", "three", "four", "five"], label)).sections
    assert [s.page for s in sections] == ["i", "ii", "1", "2", "A-7"]
    assert sections[2].label == "page 1 (sheet 3 of 5)"


def test_pages_without_text_are_noted(make_pdf) -> None:
    loaded = load_pdf("a.pdf", make_pdf(["one", None, "three", None]))
    assert [s.page for s in loaded.sections] == ["1", "3"]
    assert loaded.notes == ("2 pages (2, 4): no text (blank or only drawings)",)


def test_a_scan_is_refused(make_pdf) -> None:
    with pytest.raises(UnreadableError, match=r"no text on any of 3 pages \(a scan\?\)"):
        load_pdf("a.pdf", make_pdf([None, None, None]))
    with pytest.raises(UnreadableError, match=r"no text on its only page \(a scan\?\)"):
        load_pdf("a.pdf", make_pdf([None]))


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_an_encrypted_file_is_refused(make_pdf, algorithm: str) -> None:
    locked = make_pdf(["secret"], lambda w: w.encrypt("word", "owner", algorithm=algorithm))
    with pytest.raises(UnreadableError, match="encrypted PDF"):
        load_pdf("a.pdf", locked)
    open_to_all = make_pdf(["open"], lambda w: w.encrypt("", "owner", algorithm=algorithm))
    assert [s.text for s in load_pdf("a.pdf", open_to_all).sections] == ["open"]


def test_a_file_without_pages_is_refused(make_pdf) -> None:
    with pytest.raises(UnreadableError, match="a PDF without pages"):
        load_pdf("a.pdf", make_pdf([]))


@pytest.mark.parametrize("keep", [9, 100, 400])
def test_a_damaged_file_is_refused(make_pdf, keep: int) -> None:
    with pytest.raises(UnreadableError, match=r"damaged PDF|a PDF without pages"):
        load_pdf("a.pdf", make_pdf(["one"])[:keep])


def test_one_damaged_page_loses_nothing_else(make_pdf) -> None:
    def damage(writer: PdfWriter) -> None:
        stream = DecodedStreamObject()
        stream.set_data(b"not compressed at all")
        stream[NameObject("/Filter")] = NameObject("/NoSuchFilter")
        writer.pages[1][NameObject("/Contents")] = writer._add_object(stream)

    loaded = load_pdf("a.pdf", make_pdf(["one", "two", "three"], damage))
    assert [s.page for s in loaded.sections] == ["1", "3"]
    assert loaded.notes == ("page 2: damaged",)


def test_ligatures_and_soft_hyphens_become_letters(make_pdf) -> None:
    (section,) = load_pdf("a.pdf", make_pdf(["co\u00adoperation   "])).sections
    assert section.text == "cooperation"


def test_a_parser_that_hangs_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_pdf
) -> None:
    endless = tmp_path / "worker.py"
    endless.write_text("while True: pass")
    monkeypatch.setattr(pdf, "_WORKER", endless)
    monkeypatch.setattr(pdf, "TIMEOUT_S", 0.3)
    started = time.monotonic()
    with pytest.raises(UnreadableError, match="parsing took more than"):
        load_pdf("a.pdf", make_pdf(["one"]))
    assert time.monotonic() - started < 10


def test_a_parser_that_dies_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_pdf
) -> None:
    dying = tmp_path / "worker.py"
    dying.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(pdf, "_WORKER", dying)
    with pytest.raises(UnreadableError, match="the parser exited with status -11"):
        load_pdf("a.pdf", make_pdf(["one"]))


def test_a_decompression_bomb_stays_within_limits(make_pdf) -> None:
    def inflate(writer: PdfWriter) -> None:
        stream = DecodedStreamObject()
        stream.set_data(b" " * 200_000_000)
        writer.pages[0][NameObject("/Contents")] = writer._add_object(stream.flate_encode())

    bomb = make_pdf(["one", "two"], inflate)
    assert len(bomb) < 1_000_000
    loaded = load_pdf("a.pdf", bomb)
    assert [s.page for s in loaded.sections] == ["2"]
    assert loaded.notes == ("page 1: damaged",)


def test_modules_in_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_pdf
) -> None:
    (tmp_path / "pypdf.py").write_text("raise SystemExit('taken over')")
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert len(load_pdf("a.pdf", make_pdf(["one"])).sections) == 1


def test_too_many_pages_are_refused(make_pdf) -> None:
    writer = PdfWriter()
    for _ in range(2001):
        writer.add_blank_page(10, 10)
    buffer = io.BytesIO()
    writer.write(buffer)
    with pytest.raises(UnreadableError, match="2,001 pages; the limit is 2,000"):
        load_pdf("a.pdf", buffer.getvalue())
