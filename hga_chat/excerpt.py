"""The part of a source that is shown under an answer."""

import re
from collections import Counter

SHOWN = 160
"""Characters of an excerpt."""
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_WORD = re.compile(r"\w+")


def excerpt(text: str, answer: str, room: int = SHOWN) -> str:
    """Return whole sentences or lines around the one that shares most words with the answer.

    A word counts more the fewer sentences it is in. "…" marks what is left out.

    Args:
        text: text of the source.
        answer: text of the answer.
        room: largest number of characters.
    """
    parts = _sentences(text)
    if not parts:
        return ""
    said = set(_WORD.findall(answer.casefold()))
    found = [said.intersection(_WORD.findall(part.casefold())) for part in parts]
    times = Counter(word for words in found for word in words)
    weights = [sum(1 / times[word] for word in words) for words in found]
    first = last = weights.index(max(weights))
    shown = parts[first]
    if len(shown) > room:
        return _cut(shown, min(found[first], key=times.__getitem__, default=""), room)
    while last + 1 < len(parts) and len(shown) + 1 + len(parts[last + 1]) <= room:
        last += 1
        shown = f"{shown} {parts[last]}"
    while first > 0 and len(parts[first - 1]) + 1 + len(shown) <= room:
        first -= 1
        shown = f"{parts[first]} {shown}"
    return ("… " if first else "") + shown + (" …" if last + 1 < len(parts) else "")


def _sentences(text: str) -> list[str]:
    """Return sentences, or lines where they are shorter, with single blanks."""
    parts, at = [], 0
    for between in _BETWEEN_SENTENCES.finditer(text):
        parts.append(text[at : between.end()])
        at = between.end()
    parts.append(text[at:])
    joined = (" ".join(part.split()) for part in parts)
    return [part for part in joined if part]


def _cut(sentence: str, word: str, room: int) -> str:
    """Return part of a long sentence, from its beginning unless ``word`` is too far behind."""
    at = sentence.casefold().find(word)
    begin = 0
    if at + len(word) >= room:
        begin = sentence.rfind(" ", 0, at - room // 2) + 1
    end = len(sentence)
    if end - begin > room:
        end = sentence.rfind(" ", begin, begin + room)
        end = end if end > begin else begin + room
    rest = " …" if end < len(sentence) else ""
    return ("… " if begin else "") + sentence[begin:end] + rest
