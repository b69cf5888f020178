"""Decodes strings of PDF text by their fonts: the text and width of each character code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

from pypdf._cmap import _derive_character_map_from_type1_font_file
from pypdf._codecs import adobe_glyphs, charset_encoding
from pypdf._codecs.core_font_metrics import CORE_FONT_METRICS
from pypdf.generic import DictionaryObject, StreamObject

from hga_chat.documents.pdf.cmaps import CMap, LegacyEncoding, parse_cmap, predefined_encoding
from hga_chat.documents.pdf.font_programs import cff_encoding, true_type_glyphs
from hga_chat.documents.pdf.objects import dictionary, items, number, resolved
from hga_chat.documents.pdf.text_repair import RIGHT_TO_LEFT
from hga_chat.documents.plain.symbol_fonts import symbol_encoding, symbol_of, symbol_of_code

UNKNOWN = "\ufffd"
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]*")
_DEFAULT_WIDTH = 500.0
_MEAN_WIDTH = 0.5
_NOT_TEXT = re.compile("[\0-\x1f\x7f-\x9f\ufffd-\uffff]+")
_MAX_WIDTHS = 100_000
_MAX_KEPT_RUN = 32
_NONSYMBOLIC = 1 << 5
_MAX_KEPT_RUNS = 20_000
_UNICODE_NAME = re.compile(r"uni((?:[0-9A-F]{4})+)|u([0-9A-F]{4,6})")
_STYLED_NAME = re.compile(r"(.+?)(?:oldstyle|small|inferior|superior)")
_BYTE_WORD = re.compile(rb"[^ ]* |[^ ]+")
_CODE_NAME = re.compile(r"/[Cc](\d{2,3})")
_NUMBER_IN_NAME = re.compile(r"[A-Za-z]{0,2}?([0-9A-Fa-f]{1,4})")
_STANDARD_ENCODING = re.compile(rb"/Encoding\s+StandardEncoding\s+def")
# ISO 32000-2, annex D.4, as far as it differs from the names of other encodings: digits.
_OLD_STYLE_DIGITS = range(0x30, 0x3A)


class Code(NamedTuple):
    """A decoded character code."""

    text: str
    width: float
    """In thousandths of the font size, or the glyph space of a Type 3 font."""
    is_space: bool
    """Whether word spacing applies."""
    known: bool
    """Whether the file says what the code stands for."""
    apart: bool
    """Whether it is a glyph of its own wherever it stands."""


class Run(NamedTuple):
    """Neighbouring codes of a string that one glyph stands for: a word with the space behind it."""

    text: str
    width: float
    codes: int
    spaces: int
    """How many of the codes word spacing applies to."""
    known: bool
    apart: bool
    """Whether it joins no other."""


@dataclass(frozen=True)
class _Simple:
    """What a simple font's codes stand for, and their widths."""

    texts: dict[int, str]
    widths: dict[int, float]
    default: float
    known: bool
    """Whether the encoding is said; ``unnamed`` are the codes that it has no text for."""
    unnamed: frozenset[int]


class Font:
    """A font resource. Each code is decoded once."""

    def __init__(self, resource: Any) -> None:
        self.resource = resource
        font = dictionary(resource)
        self.name = str(resolved(font.get("/BaseFont", ""))).removeprefix("/")
        self.kind = str(resolved(font.get("/Subtype", "")))
        self.scale = 0.001
        self.em = 1.0
        """The size of letters at font size 1; Type 3 fonts have units of their own."""
        self.vertical = False
        self._codes: dict[bytes, Code] = {}
        self._runs: dict[bytes, list[Run]] = {}
        # Whether words can be looked up one by one, because a space ends them.
        self._ends_words = False
        unicode = resolved(font.get("/ToUnicode"))
        self._to_unicode = CMap()
        if isinstance(unicode, StreamObject):
            self._to_unicode = parse_cmap(unicode.get_data())
        elif str(unicode).startswith("/Identity"):
            self._to_unicode.base = "Identity"
        if self.kind == "/Type0":
            self._set_composite(font)
        else:
            self._simple = _simple_font(font, self.name, self.kind)
            if self.kind == "/Type3":
                matrix = [number(value) for value in items(font.get("/FontMatrix"))]
                self.scale = abs(matrix[0]) if len(matrix) == 6 and matrix[0] else 0.001
                widths = [width for width in self._simple.widths.values() if width]
                self.em = mean(map(abs, widths)) * self.scale / _MEAN_WIDTH if widths else 1.0
            space = self._decode(b" ")
            self._ends_words = space.apart or space.text.isspace()

    def decode(self, data: bytes) -> list[Code]:
        """Return the codes of a string."""
        known = self._codes
        found = []
        for code in self._split(data):
            decoded = known.get(code)
            if decoded is None:
                decoded = known[code] = self._decode(code)
            found.append(decoded)
        return found

    def runs(self, data: bytes, *, words: bool) -> list[Run]:
        """Return the words of a string, or code by code.

        What runs from right to left or is unnamed is always apart.
        """
        if not words:
            return [_run([code]) for code in self.decode(data)]
        found = self._runs.get(data)
        if found is None:
            parts = _BYTE_WORD.findall(data) if self._ends_words else ()
            if len(parts) > 1:
                return [run for part in parts for run in self.runs(part, words=True)]
            found = list(_runs(self.decode(data)))
            if len(data) <= _MAX_KEPT_RUN and len(self._runs) < _MAX_KEPT_RUNS:
                self._runs[data] = found
        return found

    def _set_composite(self, font: DictionaryObject) -> None:
        encoding = resolved(font.get("/Encoding"))
        self._cmap: CMap | None = None
        self._legacy: LegacyEncoding | None = None
        name = str(encoding).removeprefix("/")
        if isinstance(encoding, StreamObject):
            self._cmap = parse_cmap(encoding.get_data())
            base = resolved(encoding.get("/UseCMap"))
            name = (self._cmap.base or str(base)).removeprefix("/")
            if self._cmap.spaces:
                name = ""
            self.vertical = self._cmap.vertical or number(encoding.get("/WMode")) == 1
        self._legacy = predefined_encoding(name)
        self.vertical = self.vertical or name.endswith("-V") or name == "V"
        descendants = items(font.get("/DescendantFonts"))
        inner = dictionary(descendants[0] if descendants else None)
        self._cid_widths = _cid_widths(items(inner.get("/W")))
        self._default = number(inner.get("/DW"), 1000.0)
        info = dictionary(inner.get("/CIDSystemInfo"))
        ordering = resolved(info.get("/Ordering"))
        self._by_unicode = ordering in ("UCS", b"UCS") and not self._to_unicode.texts
        self._glyphs: tuple[list[str], bytes] | None = None
        if not self._to_unicode.texts and self._legacy is None:
            self._glyphs = _embedded_glyphs(inner)

    def _split(self, data: bytes) -> Any:
        if self.kind != "/Type0":
            return (data[at : at + 1] for at in range(len(data)))
        if self._legacy is not None:
            return self._legacy.codes(data)
        if self._cmap is not None and self._cmap.spaces:
            return (code.to_bytes(length) for length, code in self._cmap.codes(data))
        return (data[at : at + 2] for at in range(0, len(data), 2))

    def _decode(self, code: bytes) -> Code:
        value = int.from_bytes(code)
        named = self._named(value)
        if self.kind != "/Type0":
            text = self._simple.texts.get(value, "") if named is None else named
            width = self._simple.widths.get(value, self._simple.default)
            known = named is not None or (self._simple.known and value not in self._simple.unnamed)
        else:
            text = (self._composite_text(code, value) or UNKNOWN) if named is None else named
            known = text != UNKNOWN
            width = self._composite_width(code, value)
        text = symbol_of(self.name, text)
        apart = not known or not text or bool(RIGHT_TO_LEFT.search(text))
        return Code(text, width, code == b" ", known, apart)

    def _named(self, value: int) -> str | None:
        """Return the text that the font's own map names, which may be none; None if it has not."""
        if self._to_unicode.base == "Identity":
            return chr(value) if 0 < value < 0xD800 else None
        text = self._to_unicode.texts.get(value)
        return None if text and _NOT_TEXT.fullmatch(text) else text

    def _composite_text(self, code: bytes, value: int) -> str:
        if self._legacy is not None:
            return self._legacy.text(code) or ""
        if self._by_unicode:
            return chr(value) if 0 < value < 0xD800 else ""
        if self._glyphs is None:
            return ""
        names, places = self._glyphs
        glyph = self._cid(value)
        if places:
            glyph = int.from_bytes(places[2 * glyph : 2 * glyph + 2])
        return (glyph_text(names[glyph]) or "") if 0 < glyph < len(names) else ""

    def _cid(self, value: int) -> int:
        return self._cmap.cids.get(value, value) if self._cmap is not None else value

    def _composite_width(self, code: bytes, value: int) -> float:
        if self._legacy is not None:
            # The CIDs are unknown; characters of one byte are half as wide.
            return self._default if len(code) > 1 else self._default / 2
        return self._cid_widths.get(self._cid(value), self._default)


def _runs(codes: list[Code]) -> Iterator[Run]:
    start, ends = 0, True
    for at, code in enumerate(codes):
        if at > start and (code.apart or ends):
            yield _run(codes[start:at])
            start = at
        ends = code.apart or code.text.isspace()
    if codes:
        yield _run(codes[start:])


def _run(codes: list[Code]) -> Run:
    text, width, spaces = "", 0.0, 0
    for code in codes:
        text += code.text
        width += code.width
        spaces += code.is_space
    return Run(text, width, len(codes), spaces, codes[0].known, codes[0].apart)


class Fonts:
    """The fonts of a document; each is parsed once."""

    def __init__(self) -> None:
        self._fonts: dict[int, Font] = {}

    def get(self, resource: Any) -> Font:
        """Return the font of a resource; a damaged one decodes as far as it can."""
        font = self._fonts.get(id(resource))
        if font is None:
            try:
                font = Font(resource)
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001 - a damaged font raises anything
                font = Font(DictionaryObject())
                font.resource = resource  # keeps its id from another object
            self._fonts[id(resource)] = font
        return font


def _embedded_glyphs(font: DictionaryObject) -> tuple[list[str], bytes] | None:
    """Return the names of an embedded TrueType font's glyphs, and the map from CIDs to glyphs.

    The map has two bytes a CID; it is empty if CIDs are glyphs. None stands for other fonts.
    """
    program = resolved(dictionary(font.get("/FontDescriptor")).get("/FontFile2"))
    if not isinstance(program, StreamObject):
        return None
    places = resolved(font.get("/CIDToGIDMap"))
    names = true_type_glyphs(program.get_data())
    return names, places.get_data() if isinstance(places, StreamObject) else b""


def _cid_widths(entries: list[Any]) -> dict[int, float]:
    """Parse the ``/W`` array of a CID font (ISO 32000-2, 9.7.4.3)."""
    widths: dict[int, float] = {}
    at = 0
    while at + 1 < len(entries) and len(widths) < _MAX_WIDTHS:
        first, second = resolved(entries[at]), resolved(entries[at + 1])
        if isinstance(second, list):
            start = int(number(first))
            widths.update((start + n, number(width)) for n, width in enumerate(second))
            at += 2
        elif at + 2 < len(entries):
            start, end = int(number(first)), int(number(second))
            width = number(entries[at + 2])
            end = min(end, start + _MAX_WIDTHS)
            widths.update((cid, width) for cid in range(start, end + 1))
            at += 3
        else:
            break
    return widths


def _simple_font(font: DictionaryObject, name: str, kind: str) -> _Simple:
    texts, known, unnamed = _simple_texts(font, name, kind)
    descriptor = dictionary(font.get("/FontDescriptor"))
    default = number(descriptor.get("/MissingWidth"), 0.0)
    widths = {}
    entries = items(font.get("/Widths"))
    if entries:
        first = int(number(font.get("/FirstChar")))
        widths = {first + n: number(width) for n, width in enumerate(entries[:256])}
        return _Simple(texts, widths, default, known, unnamed)
    metrics = CORE_FONT_METRICS.get(_core_name(name))
    if metrics is not None:
        by_text = metrics.character_widths
        widths = {code: by_text[text] for code, text in texts.items() if text in by_text}
        default = default or by_text["default"]
    return _Simple(texts, widths, default or _DEFAULT_WIDTH, known, unnamed)


def _core_name(name: str) -> str:
    """Return the standard font of the same family and style."""
    plain = name.rpartition("+")[2]
    if plain in CORE_FONT_METRICS:
        return plain
    style = plain.casefold()
    bold, slanted = "bold" in style, "italic" in style or "oblique" in style
    if "courier" in style or "mono" in style:
        return "Courier" + {(0, 0): "", (1, 0): "-Bold", (0, 1): "-Oblique"}.get(
            (bold, slanted), "-BoldOblique"
        )
    if "times" in style or "serif" in style.replace("sans", ""):
        return "Times-" + {(0, 0): "Roman", (1, 0): "Bold", (0, 1): "Italic"}.get(
            (bold, slanted), "BoldItalic"
        )
    return "Helvetica-Bold" if bold else "Helvetica"


def _simple_texts(
    font: DictionaryObject, name: str, kind: str
) -> tuple[dict[int, str], bool, frozenset[int]]:
    """Return what codes stand for by ``/Encoding`` (ISO 32000-2, 9.6.5), and whether it is said.

    A named encoding replaces the one that is built into the font; differences change it. The last
    value has the codes of glyphs whose names say nothing.
    """
    encoding = resolved(font.get("/Encoding"))
    base = str(encoding) if isinstance(encoding, str) else ""
    differences: list[Any] = []
    if isinstance(encoding, DictionaryObject):
        base = str(resolved(encoding.get("/BaseEncoding", "")))
        differences = items(encoding.get("/Differences"))
    symbols = symbol_encoding(name)
    known = True
    if symbols is not None and not _embedded(font):
        # The glyphs of Symbol and ZapfDingbats are not in the named encodings.
        texts = dict(enumerate(symbols))
    elif base in charset_encoding:
        texts = dict(enumerate(charset_encoding[base]))
    elif base == "/MacExpertEncoding":
        texts = {code: chr(code) for code in (0x20, *_OLD_STYLE_DIGITS)}
    else:
        texts, known = _built_in(font, name, kind, symbols)
    by_number = _are_codes(
        [entry for entry in map(resolved, differences) if isinstance(entry, str)]
    )
    unnamed: set[int] = set()
    code = 0
    for entry in differences:
        entry = resolved(entry)
        if isinstance(entry, str):
            named = str(entry).removeprefix("/")
            text = glyph_text(named)
            if text is None and named != ".notdef":
                text = chr(int(named[1:])) if by_number else _text_of_code(named, code, kind)
                if text is None:
                    unnamed.add(code)
            else:
                unnamed.discard(code)
            texts[code] = (text or "") if code not in unnamed else UNKNOWN
            code += 1
        else:
            code = int(number(entry))
    shown = {code: text for code, text in texts.items() if not _CONTROLS.fullmatch(text)}
    return shown, known or bool(differences), frozenset(unnamed)


def _are_codes(names: list[str]) -> bool:
    """Whether a font's glyphs are all named by the codes of their characters, such as ``C85``."""
    return bool(names) and all(
        glyph_text(name.removeprefix("/")) is not None
        or ((found := _CODE_NAME.fullmatch(name)) and 0x20 <= int(found[1]) < 0x7F)
        for name in names
        if name != "/.notdef"
    )


def _text_of_code(name: str, code: int, kind: str) -> str | None:
    """Return the text of a glyph whose name only numbers it, if the number is its code.

    Programs that make Type 3 fonts name glyphs as they like and keep the codes.
    """
    if not 0x20 <= code < 0x7F:
        return None
    number_in_name = _NUMBER_IN_NAME.fullmatch(name)
    digits = number_in_name[1] if number_in_name else ""
    same = code in (int(digits) if digits.isdecimal() else -1, int(digits or "-1", 16))
    return chr(code) if same or kind == "/Type3" else None


def _embedded(font: DictionaryObject) -> bool:
    descriptor = dictionary(font.get("/FontDescriptor"))
    return any(key in descriptor for key in ("/FontFile", "/FontFile2", "/FontFile3"))


def _built_in(
    font: DictionaryObject, name: str, kind: str, symbols: list[str] | None
) -> tuple[dict[int, str], bool]:
    """Return a font's built-in encoding, and whether it is known."""
    standard = dict(enumerate(charset_encoding["/StandardEncoding"]))
    program = resolved(dictionary(font.get("/FontDescriptor")).get("/FontFile"))
    if isinstance(program, StreamObject):
        data = program.get_data()
        found, _ = _derive_character_map_from_type1_font_file(data, {}, [])
        if found:
            return {ord(code): text for code, text in found.items()}, True
        return standard, bool(_STANDARD_ENCODING.search(data[:10_000]))
    program = resolved(dictionary(font.get("/FontDescriptor")).get("/FontFile3"))
    if isinstance(program, StreamObject) and program.get("/Subtype") == "/Type1C":
        names = cff_encoding(program.get_data())
        found = {code: text for code, name in names.items() if (text := glyph_text(name))}
        if found:
            return found, 2 * len(found) > len(names)
    if symbols is not None:
        return dict(enumerate(symbols)), True
    shown = {code: symbol_of_code(name, code) for code in range(256)}
    if any(shown.values()):
        return {code: text for code, text in shown.items() if text}, True
    nonsymbolic = int(number(dictionary(font.get("/FontDescriptor")).get("/Flags"))) & _NONSYMBOLIC
    if kind == "/TrueType" and not nonsymbolic:
        return dict(enumerate(charset_encoding["/WinAnsiEncoding"])), True
    return standard, not _embedded(font) or kind == "/TrueType"


def glyph_text(name: str) -> str | None:
    """Return the text of a glyph by its name, as the Adobe Glyph List says; None if unknown."""
    text = _listed(name)
    if text is not None:
        return text
    stem, _, suffix = name.partition(".")
    if suffix and stem:
        return glyph_text(stem)
    if "_" in name:
        parts = [glyph_text(part) for part in name.split("_") if part]
        return "".join(part or "" for part in parts) if all(parts) else None
    return None


def _listed(name: str) -> str | None:
    text = adobe_glyphs.get(f"/{name}")
    if text is not None and not "\uf600" <= text <= "\uf8ff":
        return str(text)
    styled = _STYLED_NAME.fullmatch(name)
    if styled is not None:
        return _listed(styled[1]) or text
    match = _UNICODE_NAME.fullmatch(name)
    if match is None:
        return text
    digits = match[1] or match[2]
    step = 4 if match[1] else len(digits)
    codes = [int(digits[at : at + step], 16) for at in range(0, len(digits), step)]
    return "".join(chr(code) for code in codes if code < 0xD800 or 0xDFFF < code < 0x110000)
