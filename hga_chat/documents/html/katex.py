"""Writes formulas that KaTeX laid out for browsers in one line.

With ``output: "html"`` there is no MathML beside them: what a part means is in the classes of its
``span``, and what stands over what in the style of the boxes of a ``vlist``.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

from hga_chat.documents.html.styles import declarations
from hga_chat.documents.html.tree import Element, Text
from hga_chat.documents.plain.linear_math import (
    INVISIBLE_OPERATORS,
    Part,
    accented,
    fraction,
    joined,
    matrix,
    root,
    scripts,
    stacked,
    tidied,
)

_MAX_DEPTH = 100
_EM = re.compile(r"\s*(-?[\d.]+)em")
# A stroke through the relation behind it, in KaTeX's own font.
_NEGATED = re.compile("\ue020\\s*(\\S)")
_DELIMITER_PIECES = dict(zip("⎛⎜⎝⎞⎟⎠⎡⎢⎣⎤⎥⎦⎧⎨⎩⎫⎬⎭", "((()))[[[]]]{{{}}}", strict=True))
# By their widths in em.
_DRAWN_DELIMITERS = {0.333: "||", 0.556: "‖‖", 0.667: "[]", 0.875: "()"}
_LOWER_HOOK = re.compile(r"v-?84\b")
_WITHOUT_TEXT = frozenset({"pstrut", "strut", "vlist-s", "arraycolsep", "frac-line"})

Box = tuple[float, Element]
"""What stands in a vlist, and how far its baseline is below that of the line, in em."""


def linear(element: Element) -> str:
    """Return a formula of KaTeX, an element of class ``katex-html``, as one line of text."""
    text = tidied(joined(_parts(element, 0)))
    return _NEGATED.sub(lambda match: unicodedata.normalize("NFC", match[1] + "\u0338"), text)


def _classes(element: Element) -> set[str]:
    names = element.attributes.get("class", "").split()
    return {name.removeprefix("katex-") for name in names}


def _text(element: Element, depth: int) -> str:
    return joined(_parts(element, depth + 1)).strip()


def _parts(element: Element, depth: int) -> list[Part]:
    """Return what an element shows, in parts; scripts are joined with what is before them."""
    if depth > _MAX_DEPTH:
        return [Part(_clean(element.text()))]
    parts: list[Part] = []
    for child in element.children:
        if isinstance(child, Text):
            parts.append(Part(_clean(child.data)))
        elif "msupsub" in _classes(child):
            boxes = [(shift, _text(box, depth)) for shift, box in _boxes(child)]
            upper = " ".join(text for shift, text in boxes if shift < 0)
            lower = " ".join(text for shift, text in boxes if shift >= 0)
            parts = [Part(scripts(joined(parts), lower, upper), after=True)]
        else:
            parts += _written(child, depth + 1, _classes(element))
    return parts


def _clean(text: str) -> str:
    return text.translate(INVISIBLE_OPERATORS).replace("\u00a0", " ")


def _written(element: Element, depth: int, outer: set[str]) -> Sequence[Part]:
    classes = _classes(element)
    style = declarations(element.attributes.get("style", ""))
    if classes & _WITHOUT_TEXT or element.tag == "svg" or style.get("color") == "transparent":
        return ()
    if "mspace" in classes:
        is_wide = _em(element, "margin-right") > 0 or "newline" in classes
        return [Part(" " if is_wide else "")]
    if "mfrac" in classes:
        return [_fraction(element, depth)]
    if "sqrt" in classes:
        return [_root(element, depth)]
    if "op-limits" in classes:
        return [_limits(element, depth)]
    if "accent" in classes or "overline" in classes:
        return [Part(_accented(element, depth, is_line="overline" in classes))]
    if "munder" in classes or "mover" in classes:
        texts = [text for _, box in _boxes(element) if (text := _text(box, depth))]
        if len(texts) == 2:
            under = "munder" in classes
            return [Part(scripts(texts[0], texts[1]) if under else scripts(texts[1], "", texts[0]))]
        return [Part(" ".join(texts))]
    if "mtable" in classes:
        columns = [
            [_text(box, depth) for _, box in _boxes(child)]
            for child in element.elements()
            if "arraycolsep" not in _classes(child)
        ]
        return [Part(matrix(zip_longest(*columns, fillvalue="")))]
    if "delimsizing" in classes:
        return [Part(_delimiter(element, opens="mopen" in outer))]
    if "mord" in classes and "text" in classes:
        return [Part(_clean(element.text()), before=True, after=True)]
    if "mbin" in classes or "mrel" in classes:
        return [Part(f" {_text(element, depth)} ")]
    if "tag" in classes:
        return [Part(f" {_text(element, depth)}")]
    parts = _parts(element, depth)
    if "mop" in classes and len(parts) == 1 and len(parts[0].text) > 1:
        return [Part(parts[0].text, before=True, after=True)]
    return parts


def _boxes(element: Element) -> list[Box]:
    """Return the boxes of the first vlist below an element, from the top down."""
    vlist = next((inner for inner in element.descendants() if "vlist" in _classes(inner)), None)
    found = []
    for box in vlist.elements() if vlist is not None else ():
        if "top" in declarations(box.attributes.get("style", "")):
            strut = next((inner for inner in box.elements() if "pstrut" in _classes(inner)), None)
            shift = _em(box, "top") + (_em(strut, "height") if strut is not None else 0.0)
            found.append((shift, box))
    return sorted(found, key=lambda entry: entry[0])


def _em(element: Element, name: str) -> float:
    value = declarations(element.attributes.get("style", "")).get(name, "")
    match = _EM.match(value)
    return float(match[1]) if match and match[1].count(".") < 2 and match[1][-1:] != "-" else 0.0


def _has(element: Element, name: str) -> bool:
    return any(name in _classes(inner) for inner in element.descendants())


def _fraction(element: Element, depth: int) -> Part:
    boxes = [box for _, box in _boxes(element)]
    rows = [box for box in boxes if not _has(box, "frac-line")]
    if len(rows) != 2:
        return Part(" ".join(_text(box, depth) for box in rows))
    write = fraction if len(rows) < len(boxes) else stacked
    return Part(write(_text(rows[0], depth), _text(rows[1], depth)), before=True, after=True)


def _root(element: Element, depth: int) -> Part:
    degree = next((child for child in element.elements() if "root" in _classes(child)), None)
    inner = next((child for child in element.elements() if child is not degree), element)
    radicand = " ".join(text for _, box in _boxes(inner) if (text := _text(box, depth)))
    return Part(root(radicand, _text(degree, depth) if degree is not None else ""))


def _limits(element: Element, depth: int) -> Part:
    """Return an operator with what is over and under it."""
    boxes = [box for _, box in _boxes(element)]
    at = next((n for n, box in enumerate(boxes) if _has(box, "mop")), None)
    if at is None:
        return Part(" ".join(_text(box, depth) for box in boxes))
    upper, lower = (
        " ".join(_text(box, depth) for box in part) for part in (boxes[:at], boxes[at + 1 :])
    )
    base = _text(boxes[at], depth)
    return Part(scripts(base, lower, upper), before=len(base) > 1, after=True)


def _accented(element: Element, depth: int, *, is_line: bool) -> str:
    # An arrow is the only accent of one letter that is drawn, without a character.
    texts = [(_has(box, "accent-body"), _text(box, depth)) for _, box in _boxes(element)]
    base = " ".join(text for is_mark, text in texts if not is_mark and text)
    mark = "‾" if is_line else "".join(text or "→" for is_mark, text in texts if is_mark)
    return accented(base, mark) if mark else base


def _delimiter(element: Element, *, opens: bool) -> str:
    """Return a bracket or bar, which may be built of pieces or drawn."""
    text = _clean(element.text()).strip()
    pieces = [_DELIMITER_PIECES[character] for character in text if character in _DELIMITER_PIECES]
    if pieces or text:
        return pieces[0] if pieces else text[:1]
    drawn = next((inner for inner in element.descendants() if inner.tag == "svg"), None)
    if drawn is None:
        return ""
    width = _em(Element("", {"style": f"width:{drawn.attributes.get('width', '')}"}), "width")
    pair = _DRAWN_DELIMITERS.get(width, "")
    path = " ".join(inner.attributes.get("d", "") for inner in drawn.elements())
    if pair == "[]" and not ("V84" in path and _LOWER_HOOK.search(path)):
        return ""  # a floor or ceiling, which has one hook only
    return pair[: len(pair) // 2] if opens else pair[len(pair) // 2 :]
