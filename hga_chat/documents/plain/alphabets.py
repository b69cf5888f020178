"""Tells encodings of European languages apart by the letters of each language."""

_WESTERN = (
    "äöüß",
    "àâæçéèêëîïôœùûüÿ",
    "áéíóúüñ",
    "áâãàçéêíóôõúü",
    "àèéìíîòóù",
    "åäöæøéüá",
    "éëïóöüèê",
    "áéíóúýþæöð",
)
_CENTRAL = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž")
# Encodings, and the letters beyond ASCII of each language that may be written in them. A shared
# letter proves nothing; a letter that a language lacks rules it out.
_ALPHABETS = (
    ("cp1252", _WESTERN),
    ("cp1250", _CENTRAL),
    ("iso8859_2", _CENTRAL),
    ("cp1254", ("çğıöşüâîû",)),
)
_MIN_SHARE = 0.95
_MIN_LETTERS = 8
# Punctuation and symbols that occur in any language.
_SYMBOLS = frozenset("\u00a0«»‹›“”„‘’‚–—…·•°§©®™€£¡¿")


def european_encoding(probe: bytes) -> str | None:
    """Return the first encoding in which ``probe`` uses the letters of one language, else None.

    Western encodings are tried first, as they are the most common.

    Args:
        probe: Bytes of a text in a single-byte encoding.
    """
    for encoding, alphabets in _ALPHABETS:
        try:
            text = probe.decode(encoding).lower()
        except UnicodeDecodeError:
            continue
        letters = [
            char
            for before, char in zip(" " + text, text, strict=False)
            if char > "\x7f" and (char not in _SYMBOLS or (char == "¿" and before.isalpha()))
        ]
        if len(letters) < _MIN_LETTERS:
            continue
        for alphabet in alphabets:
            if sum(char in alphabet for char in letters) >= _MIN_SHARE * len(letters):
                return encoding
    return None
