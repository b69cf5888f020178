"""Writes the numbers of lists: 1, a, A, i, I."""

_ROMAN = (
    (1000, "m"),
    (900, "cm"),
    (500, "d"),
    (400, "cd"),
    (100, "c"),
    (90, "xc"),
    (50, "l"),
    (40, "xl"),
    (10, "x"),
    (9, "ix"),
    (5, "v"),
    (4, "iv"),
    (1, "i"),
)
_MAX_ROMAN = 3999


def roman(number: int) -> str:
    """Return a number from 1 to 3999 in lower-case Roman numerals, any other in digits."""
    if not 0 < number <= _MAX_ROMAN:
        return str(number)
    text = ""
    for worth, sign in _ROMAN:
        text += sign * (number // worth)
        number %= worth
    return text


def letters(number: int) -> str:
    """Return ``a`` to ``z``, ``aa``, ``ab`` and so on for numbers from 1, any other in digits."""
    if number < 1:
        return str(number)
    text = ""
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def html_numeral(number: int, kind: str) -> str:
    """Return a number as HTML's ``type`` says: ``1``, ``a``, ``A``, ``i`` or ``I``."""
    if kind.lower() not in {"a", "i"}:
        return str(number)
    text = letters(number) if kind.lower() == "a" else roman(number)
    return text.upper() if kind.isupper() else text
