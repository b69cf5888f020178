"""GPT-2's alphabet: the character that stands for each byte in a byte-level vocabulary."""

from collections.abc import Iterable


def _alphabet(printable: Iterable[int]) -> dict[str, int]:
    """Printable bytes stand for themselves, the rest are the characters from U+0100 on."""
    plain = frozenset(printable)
    hidden = (byte for byte in range(256) if byte not in plain)
    return {chr(byte): byte for byte in plain} | {
        chr(0x100 + place): byte for place, byte in enumerate(hidden)
    }


BYTE_OF = _alphabet([*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])
"""Byte of each of the 256 characters."""
