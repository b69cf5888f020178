import pytest

from hga_chat.documents.plain.charset_labels import decode_labelled


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        # labels of the WHATWG Encoding Standard
        ("iso-8859-1", b"\x80 \x93a\x94", "€ “a”"),
        ("ISO_8859-1:1987", b"\x80", "€"),
        (" US-ASCII ", b"\x85", "…"),
        ("iso-8859-9", b"\x80\xdd", "€İ"),
        ("tis-620", b"\x85\xa1", "…ก"),
        ("shift_jis", b"\x87\x40\xfb\xfc", "①髙"),
        ("x-sjis", b"\x88\x9f", "亜"),
        ("ks_c_5601-1987", b"\x8c\x63\xb0\xa1", "똠가"),
        ("gb2312", b"\x80\x97\x86", "€梿"),
        ("big5", "嘅".encode("big5hkscs"), "嘅"),
        ("x-mac-cyrillic", b"\x80\xff", "А€"),
        ("koi8-u", b"\xae\xa4", "ўє"),
        # Python's names for what the standard lacks
        ("cp855", "Цена".encode("cp855"), "Цена"),
        ("cp932", b"\x87\x40", "①"),
        ("iso-2022-kr", "가격".encode("iso2022-kr"), "가격"),
        ("latin-2-unix", b"\xa3", "Ł"),
    ],
)
def test_labels(label: str, data: bytes, text: str) -> None:
    assert decode_labelled(data, label) == text


@pytest.mark.parametrize(
    "label",
    ["", "nonsense", "utf-16", "utf-7", "punycode", "rot13", "base64", "x-user-defined", "mbcs"],
)
def test_labels_that_mean_nothing(label: str) -> None:
    assert decode_labelled(b"a", label) is None


def test_bytes_that_are_something_else() -> None:
    assert decode_labelled(b"\xff\xff\xff\xff", "euc-jp") is None
    assert decode_labelled(b"\0a", "iso-8859-1") is None
