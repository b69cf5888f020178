"""GPT-2's byte alphabet: the character for each byte in a byte-level vocabulary."""

from collections.abc import Iterable


def _alphabet(printable: Iterable[int]) -> dict[str, int]:
    """Map printable bytes to themselves, and the rest to the characters from U+0100 on."""
    plain = frozenset(printable)
    rest = (byte for byte in range(256) if byte not in plain)
    return {chr(byte): byte for byte in plain} | {
        chr(0x100 + number): byte for number, byte in enumerate(rest)
    }


BYTE_OF = _alphabet([*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])
"""The byte for each of the 256 characters."""
