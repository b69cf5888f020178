import pytest

from hga_chat.documents.formats import format_of
from hga_chat.documents.unsupported import unsupported_format

HTML = b"<!DOCTYPE html><p>x"


@pytest.mark.parametrize(
    ("path", "head", "name"),
    [
        ("a.txt", b"%PDF-1.7\n", "pdf"),
        ("a.pdf", b"junk\n%PDF-1.7\n", "pdf"),
        ("a.pdf", b"\0\1\2", "pdf"),
        ("a.pdf", b"just text", "text"),
        ("a.py", b"# begins with\nMARK = b'%PDF-'", "text"),
        ("a.txt", b"PK\x03\x04", "zip"),
        ("a", b"<!doctype HTML>", "html"),
        ("a.txt", b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<!-- a --> <html lang=en>", "html"),
        ("a.csv", HTML, "html"),
        ("a.html", b"a fragment", "html"),
        ("a.HTM", b"<p>", "html"),
        ("a.php", b"<!DOCTYPE html><?php echo 1 ?>", "text"),
        ("a.j2", b"<html>{% block a %}", "text"),
        ("a.xml", b"<htmlish>", "text"),
        ("a.txt", b"about <html>", "text"),
        ("a.json", b'{"cells": [{"cell_type": "code"', "notebook"),
        ("a.json", b'{"cells": [1, 2]}', "text"),
        ("a.ipynb", b" {", "notebook"),
        ("a.ipynb", b"text", "text"),
        ("a.md", b"# a", "markdown"),
        ("a.tsv", b"a\tb", "table"),
        ("a.txt", b"a,b", "text"),
        ("-", b"a,b", "text"),
    ],
)
def test_content_decides_before_the_name(path: str, head: bytes, name: str) -> None:
    assert format_of(path, head).name == name


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe1", "a JPEG image"),
        (b"GIF89a\x01\0", "a GIF image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a WAV audio file"),
        (b"\0\0\0\x18ftypmp42", "an MP4 video or audio file"),
        (b"\x1f\x8b\x08\0", "a gzip archive; unpack it first"),
        (b"BZh91AY&SY\0", "a bzip2 archive; unpack it first"),
        (b"name\0" + bytes(252) + b"ustar\0", "a tar archive; unpack it first"),
        (b"MZ\x90\0", "a Windows program or library"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"{\\rtf1 text}", "an RTF document; save it as .docx, PDF or plain text first"),
        (b"%!PS-Adobe-3.0\n", "a PostScript file; convert it to PDF first"),
        (b"BM is the beginning of a bitmap", None),
        (b"MZ stands for Mark Zbikowski", None),
        (b"GIF89a is an image", None),
        ("BZh — ".encode() * 10, None),
        ("BZh —".encode()[:-1], None),
        (b"\0\0\0\0", None),
    ],
)
def test_unsupported_formats_by_signature(head: bytes, kind: str | None) -> None:
    assert unsupported_format("a.bin", head) == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.XLS", "an old Excel workbook (.xls); save its sheets as CSV first"),
        ("a.ppt", "an old PowerPoint presentation (.ppt); save it as PDF first"),
        ("a.xlsx", "an encrypted Excel workbook; save a copy without the password first"),
        ("doc", "an old Office file; save it as .docx, CSV or PDF first"),
    ],
)
def test_old_office_files_by_name(path: str, kind: str) -> None:
    assert unsupported_format(path, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0") == kind
