"""Compiles the lines of ignore files to expressions that match as git's own matcher does.

Reference: gitignore(5), and git's behaviour where that is silent. Patterns and paths are bytes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SPECIAL = re.compile(rb"[*?\[\\]")
_BYTES = range(256)
_STAR, _FOLDERS, _ANYTHING = rb"[^/]*?", rb"(?:.*?/)??", rb".*?"
_CLASSES = {
    b"alnum": rb"[0-9A-Za-z]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[!-~]",
    b"lower": rb"[a-z]",
    b"print": rb"[ -~]",
    b"punct": rb"[!-/:-@\[-`{-~]",
    b"space": rb"[ \t-\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}


@dataclass(frozen=True)
class Pattern:
    """One line of an ignore file."""

    expression: re.Pattern[bytes]
    is_negative: bool
    is_for_folders: bool
    is_for_names: bool
    """Whether it matches the last name of a path; else the path from the ignore file's folder."""

    def matches(self, path: bytes, name: bytes, *, is_folder: bool) -> bool:
        """Whether the pattern matches ``path``, the last name of which is ``name``."""
        if self.is_for_folders and not is_folder:
            return False
        return self.expression.fullmatch(name if self.is_for_names else path) is not None


def verdict(patterns: Sequence[Pattern], path: bytes, *, is_folder: bool) -> bool | None:
    """Return whether the last pattern that matches a path ignores it; None if none matches."""
    name = path.rpartition(b"/")[2]
    for pattern in reversed(patterns):
        if pattern.matches(path, name, is_folder=is_folder):
            return not pattern.is_negative
    return None


def patterns_of(content: bytes, *, ignore_case: bool = False) -> tuple[Pattern, ...]:
    """Return the patterns of an ignore file, in order; lines that never match are left out."""
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    found = []
    for line in _lines(content):
        is_negative = line.startswith(b"!")
        glob = line.removeprefix(b"!")
        is_for_folders = glob.endswith(b"/")
        glob = glob.removesuffix(b"/")
        is_for_names = b"/" not in glob
        expression = _expression(glob.removeprefix(b"/"))
        if glob and expression is not None:
            compiled = re.compile(expression, flags)
            found.append(Pattern(compiled, is_negative, is_for_folders, is_for_names))
    return tuple(found)


def _lines(content: bytes) -> Iterator[bytes]:
    """Yield the lines that are patterns, without the blanks at their ends."""
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        glob = _without_blanks(line.removesuffix(b"\r").partition(b"\0")[0])
        if glob and not glob.startswith(b"#"):
            yield glob


def _without_blanks(line: bytes) -> bytes:
    """Remove spaces at the end, but not one after a backslash."""
    bare = line.rstrip(b" ")
    escapes = len(bare) - len(bare.rstrip(b"\\"))
    return line[: len(bare) + 1] if escapes % 2 else bare


def _expression(glob: bytes) -> bytes | None:
    """Return the regular expression of a glob; None if it matches nothing."""
    special = _SPECIAL.search(glob)
    # What is before the first wildcard is compared as it is, and the rest is a glob of its own:
    # in "a**/b" the asterisks are at its beginning.
    start = special.start() if special else len(glob)
    parts = [re.escape(glob[:start])]
    at = start
    while at < len(glob):
        char = glob[at : at + 1]
        if char == b"*":
            end = at + len(glob[at:]) - len(glob[at:].lstrip(b"*"))
            rest = glob[end:]
            is_whole = at == start or glob[at - 1 : at] == b"/"
            if end - at > 1 and is_whole and (not rest or rest.startswith((b"/", b"\\/"))):
                is_between = rest.startswith(b"/")
                parts.append(_FOLDERS if is_between else _ANYTHING)
                end += is_between
            else:
                parts.append(_STAR)
            at = end
        elif char == b"?":
            parts.append(rb"[^/]")
            at += 1
        elif char == b"[":
            found = _set(glob, at + 1)
            if found is None:
                return None
            expression, at = found
            parts.append(expression)
        else:
            at += char == b"\\"
            if at == len(glob):
                return None
            parts.append(re.escape(glob[at : at + 1]))
            at += 1
    return _without_backtracking(parts)


def _without_backtracking(parts: list[bytes]) -> bytes:
    """Join the parts of an expression so that hostile globs take no longer than others.

    What follows an asterisk is taken where it first matches if another asterisk comes after it,
    which takes whatever is left: ``*a*b`` never has to try a later ``a``.
    """
    spans = _split(parts, (_FOLDERS, _ANYTHING))
    return _joined([_joined([b"".join(run) for run in _split(span, (_STAR,))]) for span in spans])


def _split(parts: list[bytes], before: tuple[bytes, ...]) -> list[list[bytes]]:
    """Split a list before each of certain parts."""
    spans: list[list[bytes]] = [[]]
    for part in parts:
        if part in before:
            spans.append([])
        spans[-1].append(part)
    return spans


def _joined(spans: list[bytes]) -> bytes:
    """Join expressions; those between the first and the last match once."""
    inner = (b"(?>" + span + b")" for span in spans[1:-1])
    return b"".join([*spans[:1], *inner, *spans[1:][-1:]])


def _set(glob: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the expression of the set in brackets that starts at ``at``, and where it ends.

    None if it does not end or names an unknown class: then the glob matches nothing.
    """
    is_negative = glob[at : at + 1] in (b"!", b"^")
    at += is_negative
    members: set[int] = set()
    before: int | None = None
    first = at
    while at == first or glob[at : at + 1] != b"]":
        if at >= len(glob):
            return None
        char, following = glob[at : at + 1], glob[at + 1 : at + 2]
        if char == b"-" and before is not None and following not in (b"", b"]"):
            at += 1 + (following == b"\\")
            if at >= len(glob):
                return None
            members.update(range(before, glob[at] + 1))
            before = None
        elif char == b"[" and following == b":" and (end := _class_end(glob, at)) != at:
            expression = _CLASSES.get(glob[at + 2 : end - 1]) if end is not None else None
            if end is None or expression is None:
                return None
            members.update(code for code in _BYTES if re.match(expression, bytes([code])))
            at, before = end, None
        else:
            at += char == b"\\"
            if at >= len(glob):
                return None
            before = glob[at]
            members.add(before)
        at += 1
    if is_negative:
        members = set(_BYTES) - members
    listed = b"".join(re.escape(bytes([code])) for code in sorted(members - {ord("/")}))
    return (b"[" + listed + b"]" if listed else b"(?!)"), at + 1


def _class_end(glob: bytes, at: int) -> int | None:
    """Return where ``[:class:]`` ends; ``at`` if it is no class, None if it does not end."""
    end = glob.find(b"]", at + 2)
    if end < 0:
        return None
    return end if end > at + 2 and glob[end - 1 : end] == b":" else at
