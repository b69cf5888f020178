"""Computes the numbers of lists, headings and notes that Word shows but does not store in the text.

Format: ECMA-376, WordprocessingML, numbering definitions (part 1, section 17.9) and footnotes
(17.11).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hga_chat.documents.plain.numerals import roman
from hga_chat.documents.plain.symbol_fonts import symbol_of_code
from hga_chat.documents.plain.xml_lookup import child, value

BULLET = "-"
_LEVELS = 9
_MAX_NUMBER = 100_000
_PLACE = re.compile("%([1-9])")
# Bullets that say something.
_BOXES = frozenset("☐☑☒□◻✓✔✗✘")


@dataclass(frozen=True)
class _Level:
    """How one level of a list is numbered; ``shown`` is a pattern like ``%1.%2)``."""

    start: int
    form: str
    shown: str


@dataclass(frozen=True)
class _List:
    """A list that paragraphs refer to; lists with the same ``definition`` share their counts."""

    definition: str
    levels: Mapping[int, _Level]
    restarts: Mapping[int, int]


class Numbers:
    """Numbers the paragraphs of a document's lists."""

    def __init__(self, root: Any = None) -> None:
        """Take the definitions from the root of ``numbering.xml``, or none at all."""
        self._lists: dict[str, _List] = {}
        self._counts: dict[str, dict[int, int]] = {}
        self._restarted: set[tuple[str, int]] = set()
        if root is None:
            return
        defined = {
            value(entry, "abstractNumId"): _levels(entry)
            for entry in root.iterchildren("{*}abstractNum")
        }
        for entry in root.iterchildren("{*}num"):
            name, definition = value(entry, "numId"), value(child(entry, "abstractNumId"))
            if name is None or definition is None:
                continue
            levels, restarts = dict(defined.get(definition, {})), {}
            for override in entry.iterchildren("{*}lvlOverride"):
                levels |= _levels(override)
                start = child(override, "startOverride")
                if start is not None:
                    restarts[_number(value(override, "ilvl"))] = _number(value(start))
            self._lists[name] = _List(definition, levels, restarts)

    def next(self, name: str, level: int) -> str:
        """Return the marker of the next paragraph of a list: ``2.``, ``b)`` or a bullet.

        Args:
            name: The list's ``numId``; an unknown list has bullets, "0" means no list.
            level: Level in the list, from 0.
        """
        if name == "0":
            return ""
        found = self._lists.get(name)
        if found is None or level not in found.levels:
            return BULLET
        counts = self._counts.setdefault(found.definition, {})
        if level in found.restarts and (name, level) not in self._restarted:
            self._restarted.add((name, level))
            counts[level] = found.restarts[level]
        else:
            counts[level] = counts.get(level, found.levels[level].start - 1) + 1
        for deeper in [number for number in counts if number > level]:
            del counts[deeper]
        if found.levels[level].form == "bullet":
            bullet = found.levels[level].shown
            return bullet if bullet in _BOXES else BULLET

        def shown(place: re.Match[str]) -> str:
            number = int(place[1]) - 1
            own = found.levels.get(number)
            return _written(counts.get(number, own.start), own.form) if own else ""

        return " ".join(_PLACE.sub(shown, found.levels[level].shown).split())


class NoteNumbers:
    """Numbers footnotes and endnotes in the order of their references.

    Args:
        forms: Number formats by the kind of note, "footnote" or "endnote".
    """

    def __init__(self, forms: Mapping[str, str]) -> None:
        self._forms = {"footnote": "decimal", "endnote": "lowerRoman", **forms}
        self._counts = dict.fromkeys(self._forms, 0)
        self._marks: dict[tuple[str, str | None], str] = {}

    def mark(self, kind: str, reference: Any) -> str:
        """Return what stands for a reference; empty if the text has a mark of its own."""
        name = value(reference, "id")
        if (value(reference, "customMarkFollows") or "0").lower() not in {"0", "false", "off"}:
            self._marks[kind, name] = ""
            return ""
        if (kind, name) not in self._marks:
            self._counts[kind] += 1
            self._marks[kind, name] = f"[{_written(self._counts[kind], self._forms[kind])}]"
        return self._marks[kind, name]

    def marks(self, kind: str) -> dict[str | None, str]:
        """Return the marks of the notes of a kind by their ids, in the order of references."""
        return {name: mark for (k, name), mark in self._marks.items() if k == kind}


def _levels(parent: Any) -> dict[int, _Level]:
    levels = {}
    for entry in parent.iterchildren("{*}lvl"):
        number = _number(value(entry, "ilvl"))
        if number < _LEVELS:
            form = value(child(entry, "numFmt")) or "decimal"
            start = _number(value(child(entry, "start")) or "1")
            shown = value(child(entry, "lvlText")) or ""
            font = value(child(child(entry, "rPr"), "rFonts"), "ascii") or ""
            if form == "bullet" and len(shown) == 1:
                shown = symbol_of_code(font, ord(shown) & 0xFF) or shown
            levels[number] = _Level(start, form, shown)
    return levels


def _number(text: str | None) -> int:
    return min(int(text), _MAX_NUMBER) if text and text.isdecimal() else 0


def _written(number: int, form: str) -> str:
    if form in ("lowerLetter", "upperLetter") and number > 0:
        # a to z, then aa to zz.
        text = chr(ord("a") + (number - 1) % 26) * min((number - 1) // 26 + 1, 10)
        return text.upper() if form == "upperLetter" else text
    if form in ("lowerRoman", "upperRoman") and 0 < number < 4000:
        text = roman(number)
        return text.upper() if form == "upperRoman" else text
    if form == "none":
        return ""
    return f"{number:02}" if form == "decimalZero" else str(number)
