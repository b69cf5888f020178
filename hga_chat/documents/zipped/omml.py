"""Writes the formulas of Word in one line.

Formats: ECMA-376, Office Math Markup Language (part 1, section 22.1), and EQ fields (17.16.5.19).
"""

import re
from typing import Any

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
from hga_chat.documents.plain.xml_lookup import child, local, value

_MAX_DEPTH = 60
_LEFT_OUT = frozenset({"del", "moveFrom"})
_OFF = frozenset({"0", "off", "false"})
_BESIDE_WORDS = frozenset({"f", "func", "nary"})
_SCRIPTED = frozenset({"sSup", "sSub", "sSubSup", "limLow", "limUpp", "nary"})
# Functions of EQ fields; arguments stand between commas or semicolons.
_EQ_CALL = re.compile(r"\\([A-Za-z]+)\s*((?:\\[A-Za-z]{2}\d*\s*)*)\(([^()\\]*)\)")


def linear(element: Any) -> str:
    """Return the formula of an ``oMath`` or ``oMathPara`` element."""
    return tidied(_row(element, 0))


def linear_field(code: str) -> str:
    r"""Return the formula of an EQ field, such as ``EQ \f(1,2)``; empty if it is another field."""
    words = code.strip()
    if not re.match(r"EQ\s", words, re.IGNORECASE):
        return ""
    text = words[2:].strip()
    # From the inside out: each call becomes text without backslashes and round brackets.
    for _ in range(_MAX_DEPTH):
        changed = _EQ_CALL.sub(_eq_call, text)
        if changed == text:
            break
        text = changed
    return tidied(text.replace("\ue000", "(").replace("\ue001", ")"))


def _eq_call(match: re.Match[str]) -> str:
    name, options = match[1].lower(), match[2].lower()
    parts = [part.strip() for part in re.split(r"[,;]", match[3])]
    parts = [part.replace("\ue000", "(").replace("\ue001", ")") for part in parts]
    if name == "f" and len(parts) == 2:
        text = fraction(*parts)
    elif name == "r":
        text = root(parts[-1], parts[0] if len(parts) == 2 else "")
    elif name == "s":
        text = scripts(
            "", parts[0] if "\\do" in options else "", "" if "\\do" in options else parts[0]
        )
    elif name == "i" and len(parts) == 3:
        sign = "∑" if "\\su" in options else "∏" if "\\pr" in options else "∫"
        text = f"{scripts(sign, parts[0], parts[1])} {parts[2]}"
    elif name == "b":
        text = f"({match[3]})"
    else:
        text = ", ".join(parts)
    return text.replace("(", "\ue000").replace(")", "\ue001")


def _row(element: Any, depth: int) -> str:
    """Return the parts of an element in a row; None has none."""
    if element is None:
        return ""
    parts = []
    for part in element:
        name = local(part)
        if not name or name in _LEFT_OUT or name.endswith("Pr"):
            continue
        text = _written(part, name, depth)
        is_apart = name in _BESIDE_WORDS
        parts.append(Part(text, is_apart, is_apart or name in _SCRIPTED))
    return joined(parts)


def _arg(element: Any, name: str, depth: int) -> str:
    return _row(child(element, name), depth + 1)


def _property(element: Any, kind: str, name: str) -> str | None:
    """Return a value from the properties of an element; empty if it is there without one."""
    found = child(child(element, f"{kind}Pr"), name)
    return None if found is None else value(found) or ""


def _is_on(setting: str | None) -> bool:
    return setting is not None and setting.lower() not in _OFF


def _written(element: Any, name: str, depth: int) -> str:
    """Return one element of a formula."""
    if depth > _MAX_DEPTH:
        return "".join(element.itertext())
    if name == "r":
        text = "".join(part.text or "" for part in element if local(part) == "t")
        return text.replace("\u2061", " ").translate(INVISIBLE_OPERATORS)
    if name == "f":
        parts = _arg(element, "num", depth), _arg(element, "den", depth)
        return stacked(*parts) if _property(element, "f", "type") == "noBar" else fraction(*parts)
    if name in {"sSup", "sSub", "sSubSup"}:
        lower, upper = _arg(element, "sub", depth), _arg(element, "sup", depth)
        return scripts(_arg(element, "e", depth), lower, upper)
    if name == "sPre":
        before = scripts("", _arg(element, "sub", depth), _arg(element, "sup", depth))
        return before + _arg(element, "e", depth)
    if name == "rad":
        is_hidden = _is_on(_property(element, "rad", "degHide"))
        return root(_arg(element, "e", depth), "" if is_hidden else _arg(element, "deg", depth))
    if name == "nary":
        sign = _property(element, "nary", "chr")
        limits = _arg(element, "sub", depth), _arg(element, "sup", depth)
        body = _arg(element, "e", depth)
        return joined(
            [Part(scripts("∫" if sign is None else sign, *limits), after=True), Part(body)]
        )
    if name == "d":
        return _delimited(element, depth)
    if name == "func":
        return joined(
            [Part(_arg(element, "fName", depth), after=True), Part(_arg(element, "e", depth))]
        )
    if name in {"limLow", "limUpp"}:
        base, limit = _arg(element, "e", depth), _arg(element, "lim", depth)
        return scripts(base, limit) if name == "limLow" else scripts(base, "", limit)
    if name in {"acc", "bar", "groupChr"}:
        return _marked(element, name, depth)
    if name == "m":
        rows = (row for row in element if local(row) == "mr")
        return matrix([_row(cell, depth + 1) for cell in row if local(cell) == "e"] for row in rows)
    if name == "eqArr":
        # Ampersands mark where rows are aligned.
        rows = (_row(row, depth + 1) for row in element if local(row) == "e")
        return matrix([row.replace("&", " ")] for row in rows)
    if name == "phant" and _property(element, "phant", "show") in _OFF:
        return ""
    return _row(element, depth + 1)


def _delimited(element: Any, depth: int) -> str:
    signs = {"begChr": "(", "sepChr": "|", "endChr": ")"}
    for name, default in signs.items():
        given = _property(element, "d", name)
        signs[name] = default if given is None else given
    parts = [_row(part, depth + 1) for part in element if local(part) == "e"]
    return signs["begChr"] + signs["sepChr"].join(parts) + signs["endChr"]


def _marked(element: Any, name: str, depth: int) -> str:
    base = _arg(element, "e", depth)
    if name == "groupChr":
        return base
    sign = _property(element, name, "chr")
    if name == "bar":
        sign = "_" if _property(element, name, "pos") != "top" else "¯"
        return scripts(base, "‾") if sign == "_" else accented(base, sign)
    return accented(base, "\u0302" if sign is None else sign)
