"""Telling the encodings of European languages apart by the letters that each language has."""

_WESTERN = "cp1252"
# The letters beyond ASCII. What a language shares with others is no proof, what it lacks is.
_ALPHABETS = (
    *((_WESTERN, letters) for letters in ("äöüß", "àâæçéèêëîïôœùûüÿ", "áéíóúüñ", "áâãàçéêíóôõúü")),
    *((_WESTERN, letters) for letters in ("àèéìíîòóù", "åäöæøéüá", "éëïóöüèê", "áéíóúýþæöð")),
    *(
        (encoding, letters)
        for encoding in ("cp1250", "iso8859_2")
        for letters in (
            *("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž"),
        )
    ),
    ("cp1254", "çğıöşüâîû"),
)
_MIN_SHARE = 0.95
_MIN_LETTERS = 8
# Signs that stand between words, wherever their text comes from.
_SIGNS = frozenset("\u00a0«»‹›“”„‘’‚–—…·•°§©®™€£¡¿")


def european_encoding(probe: bytes) -> str | None:
    """Return the encoding in which ``probe`` is written with the letters of one language.

    Western ones come first: most files are.

    Args:
        probe: Text in which single bytes beyond ASCII stand for letters.
    """
    for encoding, alphabet in _ALPHABETS:
        try:
            text = probe.decode(encoding).lower()
        except UnicodeDecodeError:
            continue
        letters = [
            char
            for before, char in zip(" " + text, text, strict=False)
            if char > "\x7f" and (char not in _SIGNS or (char == "¿" and before.isalpha()))
        ]
        known = sum(char in alphabet for char in letters)
        if len(letters) >= _MIN_LETTERS and known >= _MIN_SHARE * len(letters):
            return encoding
    return None
