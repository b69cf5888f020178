"""Measures the width of PDF text by its fonts."""

from typing import Any, cast

from pypdf import PageObject
from pypdf.generic import (
    ArrayObject,
    DecodedStreamObject,
    DictionaryObject,
    NameObject,
    NumberObject,
)
from pypdf.generic._font import Font

_UNUSED_CODE = 0xFFFF
_SPACE_WIDTH = 250


class Fonts:
    """The fonts of a document; each is parsed once."""

    def __init__(self) -> None:
        self._fonts: dict[int, tuple[DictionaryObject, Font | None]] = {}

    def prepare(self, page: PageObject) -> None:
        """Add a space to fonts of the page that have none, so that pypdf separates words.

        Otherwise pypdf takes the width of some other glyph for the width of a space.
        """
        try:
            resources = page.get("/Resources", {}).get_object().get("/Font", {}).get_object()
            fonts = [resource.get_object() for resource in resources.values()]
        except Exception:  # noqa: BLE001 - damaged resources raise anything
            return
        for font in fonts:
            if isinstance(font, DictionaryObject) and id(font) not in self._fonts:
                _add_space(font)
                self._font(font)

    def width(
        self, shown: Any, resource: DictionaryObject | None, size: float, word_space: float
    ) -> float:
        """Return the width of the operand of ``Tj`` or ``TJ``, in points before any matrix."""
        font = self._font(resource)
        spaces = 0
        width = 0.0
        for item in shown if isinstance(shown, ArrayObject) else (shown,):
            if isinstance(item, int | float):
                width -= float(item)
            elif isinstance(item, str):
                width += 500.0 * len(item)
            elif isinstance(item, bytes):
                width += _width_of_codes(item, font)
                # Word spacing applies to one-byte codes only.
                spaces += item.count(b" ") if font and isinstance(font.encoding, dict) else 0
        return width / 1000 * size + spaces * word_space

    def _font(self, resource: DictionaryObject | None) -> Font | None:
        if resource is None:
            return None
        known = self._fonts.get(id(resource))
        if known is None:
            try:
                font = Font.from_font_resource(resource)
            except Exception:  # noqa: BLE001 - a damaged font raises anything
                font = None
            # Keep the resource alive so that no other object gets its id.
            known = self._fonts[id(resource)] = (resource, font)
        return known[1]


def _add_space(font: DictionaryObject) -> None:
    """Map an unused code to a space, in a font with two-byte codes and no space."""
    try:
        if font.get("/Subtype") != "/Type0" or "/ToUnicode" not in font:
            return
        if " " in Font.from_font_resource(font).character_map.values():
            return
        names: bytes = cast(Any, font["/ToUnicode"]).get_data()
        descendant = cast(Any, font["/DescendantFonts"])[0].get_object()
        widths = list(descendant.get("/W", ArrayObject()).get_object())
    except Exception:  # noqa: BLE001 - a damaged font raises anything
        return
    named = DecodedStreamObject()
    space = b"1 beginbfchar <%04X> <0020> endbfchar endcmap" % _UNUSED_CODE
    named.set_data(names.replace(b"endcmap", space, 1))
    font[NameObject("/ToUnicode")] = named
    own = [NumberObject(_UNUSED_CODE), ArrayObject([NumberObject(_SPACE_WIDTH)])]
    descendant[NameObject("/W")] = ArrayObject(widths + own)


def _width_of_codes(codes: bytes, font: Font | None) -> float:
    if font is None:
        return 500.0 * len(codes)
    if isinstance(font.encoding, str):
        characters = codes.decode(font.encoding, "replace")
    else:
        characters = codes.decode("latin-1")
    widths = font.character_widths
    default = widths.get("default", 500)
    return float(sum(widths.get(character, default) for character in characters))
