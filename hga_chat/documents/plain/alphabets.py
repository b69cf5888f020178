"""Tells single-byte encodings apart by the letters of each language.

It covers what the detector of browsers does not: the code pages of DOS and of the old Macintosh,
Hungarian and Estonian.
"""

import math
import re
from collections.abc import Iterator

_WESTERN = (
    "äöüß",
    "àâæçéèêëîïôœùûüÿ",
    "áéíóúüñ",
    "áâãàçéêíóôõúü",
    "àèéìíîòóù",
    "åäöæøéüá",
    "éëïóöüèê",
    "áéíóúýþæöð",
    "àçèéíïóòúü·",
    "äöõüšž",
)
_CENTRAL = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž")
_HUNGARIAN = ("áéíóöőúüű",)
_ESTONIAN = ("äöõüšž",)
# The capital of "i" in lower case begins with a plain one.
_TURKISH = ("çğıiöşüâîû",)
# Encodings, and the letters beyond ASCII of each language written in them.
_CODE_PAGES = (
    ("iso8859_2", _HUNGARIAN),
    ("iso8859_13", _ESTONIAN),
    ("mac_roman", _WESTERN),
    ("cp850", _WESTERN),
    ("cp852", _CENTRAL),
    ("cp857", _TURKISH),
)
_ALPHABETS = (*_WESTERN, *_CENTRAL, *_TURKISH, "ąčęėįšųūž", "āčēģīķļņšūž")
_MIN_FIT = 0.97
_MIN_GAIN = 0.1
_MIN_LETTERS = 4
_MIN_PAIRED_SHARE = 0.5
_HIGH = re.compile(rb"[\x80-\xff]")
_RUNS = re.compile(rb"[\x80-\xff]{2,}")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
# Punctuation and symbols, what of it may stand within a word, and what never before or after one.
_MARKS = frozenset("\u00a0·«»‹›“”„‘’‚–—…•°§©®™€£¡¿№")
_WITHIN = frozenset("·’\u00ad–—")
_NOT_AFTER_A_LETTER = frozenset("•‚„¡¿€£©")
_NOT_BEFORE_A_WORD = frozenset("”…°")

# Letters of Russian in a thousand, and those of related languages.
_SHARES = (
    "110 85 80 74 67 63 55 47 45 44 35 32 30 28 26 20 19 17 17 16 16 14 12 10 9 7 6 5 4 3 3 3 1"
)
_CYRILLIC = {
    **dict(zip("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё", map(int, _SHARES.split()), strict=True)),
    "і": 20,
    "ј": 15,
    **dict.fromkeys("їєўљњ", 5),
    **dict.fromkeys("ґћђџѓќѕ", 2),
}
_LOG_SHARES = {letter: math.log(share / 1000) for letter, share in _CYRILLIC.items()}
_NO_LETTER = math.log(1e-5)
_CYRILLIC_ENCODINGS = ("cp1251", "koi8_u", "cp866", "iso8859_5", "mac_cyrillic", "cp855")
# The mean of text is about -3.1, that of text in other alphabets at most -3.3 or so.
_MIN_CYRILLIC = -3.25
_MIN_KNOWN_CYRILLIC = -4.0


def cyrillic_encoding(probe: bytes, *, is_cyrillic: bool) -> str | None:
    """Return the encoding in which ``probe`` has Cyrillic letters as often as text has; else None.

    Args:
        probe: Bytes of a text in a single-byte encoding.
        is_cyrillic: Whether the text is known to be Cyrillic.
    """
    scores = {name: _cyrillic_score(probe.decode(name, "replace")) for name in _CYRILLIC_ENCODINGS}
    best = max(scores, key=scores.__getitem__)
    if is_cyrillic:
        return best if scores[best] >= _MIN_KNOWN_CYRILLIC else None
    in_words = sum(map(len, _RUNS.findall(probe))) >= _MIN_PAIRED_SHARE * len(_HIGH.findall(probe))
    return best if in_words and scores[best] >= _MIN_CYRILLIC else None


def _cyrillic_score(text: str) -> float:
    """Return the mean logarithm of the letters' shares; a capital within a word is no letter."""
    total, count = 0.0, 0
    for before, char, after in _beyond_ascii(text):
        lower = char.lower()
        if char in _MARKS:
            if not _is_odd(before, char, after):
                continue
            total += _NO_LETTER
        else:
            within = char != lower and before.islower()
            total += _NO_LETTER if within else _LOG_SHARES.get(lower, _NO_LETTER)
        count += 1
    return total / count if count >= _MIN_LETTERS else _NO_LETTER


def _beyond_ascii(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each character beyond ASCII between the ones beside it."""
    padded = f" {text} "
    for match in _BEYOND_ASCII.finditer(padded, 1):
        yield padded[match.start() - 1], match[0], padded[match.end()]


def _is_odd(before: str, mark: str, after: str) -> bool:
    """Whether a punctuation mark stands where none would."""
    if before.isalpha() and (
        mark in _NOT_AFTER_A_LETTER or (after.isalpha() and mark not in _WITHIN)
    ):
        return True
    return mark in _NOT_BEFORE_A_WORD and before.isspace() and after.isalpha()


def is_punctuation(text: str) -> bool:
    """Whether all that ``text`` has beyond ASCII are marks in their place."""
    return all(
        char in _MARKS and not _is_odd(before, char, after)
        for before, char, after in _beyond_ascii(text)
    )


def code_page(probe: bytes, text: str) -> str | None:
    """Return the encoding whose languages fit ``probe`` better than any language fits ``text``.

    Args:
        probe: Bytes of a text in a single-byte encoding.
        text: ``probe`` in the encoding that it would have otherwise.
    """
    fits = {name: _fit(probe.decode(name, "replace"), alphabets) for name, alphabets in _CODE_PAGES}
    best = max(fits, key=fits.__getitem__)
    is_better = fits[best] >= max(_MIN_FIT, _fit(text, _ALPHABETS) + _MIN_GAIN)
    return best if is_better else None


def _fit(text: str, alphabets: tuple[str, ...]) -> float:
    """Return the share of characters beyond ASCII that a language's words and marks can have."""
    letters, good, bad = [], 0, 0
    for before, char, after in _beyond_ascii(text):
        if char in _MARKS:
            is_odd = _is_odd(before, char, after)
            good += not is_odd
            bad += is_odd
        elif not char.isalpha() or (char.isupper() and before.islower()):
            bad += 1
        else:
            letters.append(char.lower()[0])
    if len(letters) + good < _MIN_LETTERS and bad:
        return 0.0
    known = max(sum(letter in alphabet for letter in letters) for alphabet in alphabets)
    count = len(letters) + good + bad
    return (known + good) / count if count else 0.0
