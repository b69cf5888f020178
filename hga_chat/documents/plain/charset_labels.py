"""Decodes bytes by the name of their character set, as browsers and programming languages do.

A label of the WHATWG Encoding Standard means what it means there: ``iso-8859-1`` is windows-1252,
``shift_jis`` is windows-31j, ``euc-kr`` is windows-949. Other names are Python's codecs, such as
``cp855``.
"""

import codecs
import re

# Labels with hyphens and underscores, which Python's registry of codecs does not keep apart.
_MIXED = (
    (re.compile(r"iso_8859-(\d+)(?::\d+)?"), r"iso-8859-\1"),
    (re.compile(r"ks_c_5601-\d+"), "euc-kr"),
    (re.compile(r"gb_2312(?:-80)?"), "gbk"),
    (re.compile(r"(?:ms)?(?:cp|windows)[-_]?(?:31j|932)"), "shift_jis"),
    (re.compile(r"(?:cp|ms|uhc)[-_]?949|uhc"), "euc-kr"),
    (re.compile(r"(?:cp|ms)[-_]?936"), "gbk"),
    (re.compile(r"(?:cp|ms)[-_]?950"), "big5"),
    # How Emacs and TeX write what others know by another name.
    (re.compile(r"(.+)-(?:unix|dos|mac)"), r"\1"),
    (re.compile(r"latin-(\d+)"), r"latin\1"),
    (re.compile(r"ansinew"), "windows-1252"),
    (re.compile(r"applemac"), "macintosh"),
    (re.compile(r"japanese-shift-jis"), "shift_jis"),
)
# Codecs that are no character sets of documents, and encodings that only a browser refuses.
_NO_CHARSET = re.compile(
    "idna|punycode|escape|utf.?7|undefined|mbcs|oem|x-user-defined|replacement"
)
_ONLY_PYTHON = re.compile("iso-?2022-?(?:kr|cn)|csiso2022kr|hz(?:-gb-2312)?")
_UTF_16_OR_32 = re.compile(r"utf-?(?:16|32)|ucs-?[24]|iso-10646")

_MAX_BAD_SHARE = 0.02


def decode_labelled(data: bytes, label: str) -> str | None:
    """Return ``data`` decoded as the character set ``label``.

    Bytes that stand for nothing become U+FFFD. None if the label is unknown, cannot be true of
    bytes that were searched for it as ASCII, or more than 2% of what is beyond ASCII is invalid.
    """
    codec = _codec(label)
    if codec is None:
        return None
    try:
        text = data.decode(codec, "replace")
    except (LookupError, UnicodeError):
        return None
    invalid = text.count("\ufffd")
    beyond = sum(char > "\x7f" for char in text)
    return text if invalid <= max(1, _MAX_BAD_SHARE * beyond) and "\0" not in text else None


def is_charset(label: str) -> bool:
    """Whether a label names a character set, UTF-16 included."""
    return bool(_UTF_16_OR_32.search(label.lower())) or _codec(label) is not None


def is_utf8(label: str) -> bool:
    """Whether a label stands for UTF-8."""
    return label.strip().lower() in {"utf-8", "utf8", "unicode-1-1-utf-8", "utf-8-sig", "utf_8"}


def _codec(label: str) -> str | None:
    # Registers the codecs of the standard.
    import turbohtml.detect  # noqa: F401

    name = label.strip().lower()
    for pattern, meaning in _MIXED:
        if pattern.fullmatch(name):
            name = pattern.sub(meaning, name)
    if not name or _NO_CHARSET.search(name) or _UTF_16_OR_32.search(name):
        return None
    names = (name,) if _ONLY_PYTHON.fullmatch(name) else (f"whatwg-{name}", name)
    for candidate in names:
        try:
            return codecs.lookup(candidate).name
        except (LookupError, ValueError):
            continue
    return None
