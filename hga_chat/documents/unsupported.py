"""Recognises files that cannot be loaded by their first bytes: images, archives, programs."""

# Offset, bytes there, and what the file then is.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"BM", "a bitmap image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"8BPS", "a Photoshop image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyp", "an MP4 video or audio file"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (8, b"AVI ", "an AVI video"),
    (8, b"WAVE", "a WAV audio file"),
    (0, b"ID3", "an MP3 audio file"),
    (0, b"\xff\xfb", "an MP3 audio file"),
    (0, b"OggS", "an Ogg audio or video file"),
    (0, b"fLaC", "a FLAC audio file"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (0, b"BZh", "a bzip2 archive; unpack it first"),
    (0, b"\xfd7zXZ\0", "an xz archive; unpack it first"),
    (0, b"(\xb5/\xfd", "a Zstandard archive; unpack it first"),
    (0, b"7z\xbc\xaf'\x1c", "a 7z archive; unpack it first"),
    (0, b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"\x7fELF", "an ELF program or library"),
    (0, b"\xcf\xfa\xed\xfe", "a macOS program or library"),
    (0, b"\xca\xfe\xba\xbe", "a Java class or macOS program"),
    (0, b"MZ", "a Windows program or library"),
    (0, b"\0asm", "a WebAssembly module"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x89HDF\r\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"wOFF", "a font"),
    (0, b"wOF2", "a font"),
    (0, b"OTTO", "a font"),
    (0, b"\0\1\0\0\0", "a font"),
)
_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_TEXT_SIGNATURES = (
    (b"{\\rtf", "an RTF document; save it as .docx, PDF or plain text first"),
    (b"%!PS-", "a PostScript file; convert it to PDF first"),
)


def unsupported_format(path: str, head: bytes) -> str | None:
    """Return what an unsupported file is and what to do about it; None if it may be text.

    Args:
        path: The name distinguishes old Office files.
        head: The first bytes.
    """
    if head.startswith(_OFFICE):
        return _office_kind(path)
    for signature, kind in _TEXT_SIGNATURES:
        if head.startswith(signature):
            return kind
    if _may_be_text(head):
        return None
    for offset, signature, kind in _SIGNATURES:
        if head.startswith(signature, offset):
            return kind
    return None


def _may_be_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without a NUL, so that a match with a signature is chance."""
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3
    return True


def _office_kind(path: str) -> str:
    kinds = {
        ".doc": "an old Word document (.doc); save it as .docx or PDF first",
        ".xls": "an old Excel workbook (.xls); save its sheets as CSV first",
        ".ppt": "an old PowerPoint presentation (.ppt); save it as PDF first",
        ".docx": "an encrypted Word document; save a copy without the password first",
        ".xlsx": "an encrypted Excel workbook; save a copy without the password first",
        ".pptx": "an encrypted PowerPoint presentation; save a copy without the password first",
        ".msi": "a Windows installer",
        ".msg": "an Outlook message; save it as text first",
    }
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    return kinds.get(suffix, "an old Office file; save it as .docx, CSV or PDF first")
